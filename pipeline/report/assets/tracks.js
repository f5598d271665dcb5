"use strict";
// A picture of each track, as a button that jumps to its clearest view.
(() => {
  const { tracks, tile } = report.video;
  const PAGE = 60;
  const list = report.byId("tracks");
  const [wide, high, columns, rows] = tile;
  const pictures = tracks.tile.some((place) => place >= 0);
  let order = [];
  let shown = PAGE;
  let chosen = -1;

  const crop = (place) => {
    const picture = report.element("span", { className: "crop" });
    if (place >= 0) {
      const inSheet = place % (columns * rows);
      const sheet = (place - inSheet) / (columns * rows);
      const [x, y] = [(inSheet % columns) * wide, Math.floor(inSheet / columns) * high];
      picture.style.background = `url("crops-${sheet}.jpg") -${x}px -${y}px`;
    }
    return picture;
  };

  const button = (track) => {
    const made = report.element("button", { type: "button" },
      ...(pictures ? [crop(tracks.tile[track])] : []),
      report.element("b", { textContent: `track ${tracks.id[track]}` }),
      report.element("span", {
        textContent: `${report.clock(tracks.start[track])}, ` +
          `${(tracks.end[track] - tracks.start[track]).toFixed(1)} s`,
      }),
      report.element("span", { textContent: `quality ${tracks.quality[track].toFixed(2)}` }),
      ...(tracks.trust[track] === null ? [] : [report.element("span", {
        className: "trust",
        textContent: `${report.isLow(track) ? "low trust" : "trust"} ` +
          tracks.trust[track].toFixed(2),
      })]));
    made.classList.toggle("low-trust", report.isLow(track));
    made.setAttribute("aria-pressed", String(track === chosen));
    made.dataset.track = track;
    return report.element("li", {}, made);
  };

  const draw = () => {
    list.replaceChildren(...order.slice(0, shown).map(button));
    report.byId("more-tracks").hidden = order.length <= shown;
    report.byId("track-count").textContent = `${order.length} of ${tracks.id.length} tracks`;
  };

  const update = () => {
    const wanted = report.byId("track").value.trim();
    const key = report.byId("order").value;
    const down = key === "frames" ? -1 : 1;
    const value = (track) => tracks[key][track] ?? 2; // an unknown trust comes last
    order = tracks.id.map((_, track) => track)
      .filter((track) => !wanted || String(tracks.id[track]) === wanted)
      .filter(report.isShown)
      .sort((a, b) => down * (value(a) - value(b)) || a - b);
    shown = PAGE;
    draw();
  };

  report.chooseTrack = (track) => {
    chosen = chosen === track ? -1 : track;
    report.player.choose(chosen < 0 ? null : tracks.id[chosen]);
    if (list) {
      for (const each of list.querySelectorAll("button")) {
        each.setAttribute("aria-pressed", String(Number(each.dataset.track) === chosen));
      }
    }
    report.timeline.reveal(track);
  };

  if (!list) return;
  list.addEventListener("click", (event) => {
    const pressed = event.target.closest("button");
    if (!pressed) return;
    const track = Number(pressed.dataset.track);
    if (track !== chosen) {
      report.player.seek(tracks.view[track]);
      report.byId("stage").scrollIntoView({ block: "nearest" });
    }
    report.chooseTrack(track);
  });
  report.byId("track").addEventListener("input", update);
  report.byId("order").addEventListener("input", update);
  const trust = report.byId("trust");
  if (trust) trust.addEventListener("input", () => {
    report.trustRange = trust.value ? trust.value.split("-").map(Number) : null;
    update();
    report.player.draw();
    report.timeline.draw();
  });
  report.byId("track-filters").addEventListener("submit", (event) => event.preventDefault());
  report.byId("more-tracks").addEventListener("click", () => {
    shown += 5 * PAGE;
    draw();
  });
  update();
})();
