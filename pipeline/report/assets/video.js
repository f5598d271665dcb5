"use strict";
// Keys, buttons that jump, and the first view of the page of a video.
(() => {
  const { player, timeline } = report;
  const keys = {
    " ": () => player.toggle(),
    ArrowLeft: (event) => player.seek(player.now() - (event.shiftKey ? 10 : 1)),
    ArrowRight: (event) => player.seek(player.now() + (event.shiftKey ? 10 : 1)),
    ",": () => player.step(-1),
    ".": () => player.step(1),
    "+": () => timeline.zoom(0.5),
    "-": () => timeline.zoom(2),
    Home: () => player.seek(0),
    End: () => player.seek(report.video.duration),
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, summary, a");
    const pressing = event.key === " " && event.target.closest("button");
    const scrolls = ["Home", "End"].includes(event.key) && event.target.id !== "curves";
    if (!keys[event.key] || typing || pressing || scrolls || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key](event);
  });
  for (const chip of document.querySelectorAll("[data-seek]")) {
    chip.addEventListener("click", () => {
      player.seek(Number(chip.dataset.seek));
      report.byId("stage").scrollIntoView({ block: "nearest" });
    });
  }
  // The address may say where to begin, as #t=12.5.
  const asked = Number(new URLSearchParams(location.hash.slice(1)).get("t") ?? NaN);
  player.seek(asked >= 0 ? asked : report.video.view);
  timeline.draw();
})();
