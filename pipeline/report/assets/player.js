"use strict";
// Plays the video and draws boxes over it. Without a video, boxes are drawn on black.
(() => {
  const data = report.video;
  const stage = report.byId("stage");
  const video = report.byId("video");
  const canvas = report.byId("overlay");
  const listeners = [];
  const trackOf = new Map(data.tracks.id.map((id, track) => [id, track]));
  let now = 0; // seconds of the tables
  let chosen = null; // id of a track
  let timer = 0; // of playing without a video

  const text = (paint, words, x, y, colour) => {
    const wide = paint.measureText(words).width + 8;
    const left = report.limited(x, 0, Math.max(0, canvas.width - wide));
    const size = parseInt(paint.font.match(/(\d+)px/)[1], 10) + 4;
    const top = y - size < 0 ? y : y - size;
    paint.fillStyle = "#000c";
    paint.fillRect(left, top, wide, size);
    paint.fillStyle = colour;
    paint.fillRect(left, top, 3, size);
    paint.fillStyle = "#fff";
    paint.fillText(words, left + 5, top + size - 5);
  };

  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [stage.clientWidth * ratio, stage.clientHeight * ratio].map(Math.round);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const paint = canvas.getContext("2d");
    paint.clearRect(0, 0, width, height);
    const shown = report.boxesAt(now);
    if (!shown || !report.byId("boxes").checked) return;
    paint.font = `600 ${Math.round(12 * ratio)}px system-ui, sans-serif`;
    for (const box of shown.boxes) {
      const track = trackOf.get(box.id);
      if (!report.isShown(track)) continue;
      const low = report.isLow(track);
      const colour = data.palette[box.id % data.palette.length];
      const [x, y] = [box.left * width, box.top * height];
      const [w, h] = [(box.right - box.left) * width, (box.bottom - box.top) * height];
      const line = (box.id === chosen ? 4 : 2) * ratio;
      paint.lineWidth = line + 2 * ratio;
      paint.strokeStyle = "#000a"; // a dark edge makes each colour visible on any picture
      paint.strokeRect(x, y, w, h);
      paint.lineWidth = line;
      paint.strokeStyle = colour;
      paint.setLineDash(low ? [6 * ratio, 5 * ratio] : []);
      paint.strokeRect(x, y, w, h);
      paint.setLineDash([]);
      const score = box.id === chosen ? ` ${box.score.toFixed(2)}` : "";
      text(paint, `${box.id}${low ? "?" : ""}${score}`, x, y, colour);
    }
  };

  const arrived = (time) => {
    now = report.limited(time, 0, data.duration);
    report.byId("now").value = report.clock(now);
    draw();
    for (const call of listeners) call(now);
  };

  const playing = () => (video ? !video.paused : timer !== 0);

  const showButton = () => {
    report.byId("play").textContent = playing() ? "❚❚" : "▶";
    report.byId("play").setAttribute("aria-label", playing() ? "Pause" : "Play");
  };

  const stop = () => {
    if (video) video.pause();
    window.cancelAnimationFrame(timer);
    timer = 0;
    showButton();
  };

  const speed = () => Number(report.byId("speed").value);

  const start = () => {
    if (video) {
      video.play().catch(() => showButton());
      return;
    }
    if (now >= data.duration) now = 0;
    let before = performance.now();
    const next = (at) => {
      arrived(now + (speed() * (at - before)) / 1000);
      before = at;
      if (now >= data.duration) stop();
      else timer = window.requestAnimationFrame(next);
    };
    timer = window.requestAnimationFrame(next);
    showButton();
  };

  report.player = {
    draw,
    now: () => now,
    chosen: () => chosen,
    onTime: (call) => listeners.push(call),
    choose: (id) => {
      chosen = id;
      draw();
    },
    toggle: () => (playing() ? stop() : start()),
    seek: (time) => {
      arrived(time);
      // A little later than the frame's time, so that rounding does not show the one before.
      if (video) video.currentTime = now + data.offset + 0.001;
    },
    step: (frames) => {
      stop();
      report.player.seek(report.frameFrom(now, frames));
    },
  };

  if (video) {
    if ("requestVideoFrameCallback" in video) {
      const shown = (_, frame) => {
        if (!video.seeking) arrived(frame.mediaTime - data.offset);
        video.requestVideoFrameCallback(shown);
      };
      video.requestVideoFrameCallback(shown);
    } else {
      const poll = () => {
        if (!video.paused) arrived(video.currentTime - data.offset);
        window.requestAnimationFrame(poll);
      };
      window.requestAnimationFrame(poll);
    }
    for (const name of ["play", "pause", "ended"]) video.addEventListener(name, showButton);
    video.addEventListener("error", () => {
      report.byId("trouble").hidden = false;
      report.byId("trouble").textContent =
        "This browser cannot play the video: it was moved since, or it has a codec that the " +
        "browser lacks. vsdmot report OUTPUT player=copy puts a copy into the report.";
    });
    video.src = data.source;
  }
  report.byId("play").addEventListener("click", report.player.toggle);
  report.byId("back").addEventListener("click", () => report.player.step(-1));
  report.byId("on").addEventListener("click", () => report.player.step(1));
  report.byId("boxes").addEventListener("change", draw);
  report.byId("full").addEventListener("click", () =>
    document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen());
  report.byId("speed").addEventListener("change", () => {
    if (video) video.playbackRate = speed();
  });
  stage.addEventListener("click", report.player.toggle);
  report.onBoxes(draw);
  new ResizeObserver(draw).observe(stage);
})();
