"use strict";
// Curves, and tracks as bars, on one axis of time. They are drawn again when the view changes; the
// player's place is an element above them, which moves without drawing.
(() => {
  const data = report.video;
  const { curves, tracks, bars } = data;
  const LEFT = 40; // room for labels
  const QUALITY = { top: 22, height: 96 };
  const PEOPLE = { top: 138, height: 44 };
  const HEIGHT = PEOPLE.top + PEOPLE.height + 8;
  const ROWS_OF_THEIR_OWN = 40; // with more tracks, several that do not overlap share a lane
  const [plot, lanesView] = [report.byId("plot"), report.byId("lanes-view")];
  const [curveCanvas, laneCanvas] = [report.byId("curves"), report.byId("lanes")];
  const whole = Math.max(data.duration, 0.1);
  const view = { start: 0, end: whole };

  // Lane of each track, in order of their start; and the tracks of each lane.
  const lanes = [];
  const laneOf = tracks.id.map((_, track) => {
    const apart = 0.004 * whole;
    const free = tracks.id.length <= ROWS_OF_THEIR_OWN ? -1
      : lanes.findIndex((lane) => tracks.end[lane[lane.length - 1]] + apart <= tracks.start[track]);
    if (free < 0) lanes.push([]);
    lanes[free < 0 ? lanes.length - 1 : free].push(track);
    return free < 0 ? lanes.length - 1 : free;
  });
  const lane = lanes.length <= 20 ? 18 : lanes.length <= 60 ? 11 : 7;

  const width = () => plot.clientWidth;
  const across = (time) =>
    LEFT + ((time - view.start) / (view.end - view.start)) * (width() - LEFT);
  const timeAt = (x) =>
    view.start + ((x - LEFT) / (width() - LEFT)) * (view.end - view.start);

  const prepared = (canvas, height) => {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width() * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const paint = canvas.getContext("2d");
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.font = "11px system-ui, sans-serif";
    return paint;
  };

  const tickStep = () => {
    const wanted = ((view.end - view.start) * 90) / Math.max(width() - LEFT, 90);
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
    return steps.find((step) => step >= wanted) || 14400;
  };

  const marks = (paint, top, height) => {
    for (const [start, end] of data.low) {
      const x = Math.max(across(start), LEFT);
      const wide = Math.max(across(end) - x, 1);
      if (end < view.start || start > view.end) continue;
      paint.fillStyle = report.colour("--low");
      paint.fillRect(x, top, wide, height);
      paint.fillStyle = report.colour("--low-line");
      paint.fillRect(x, top + height - 3, wide, 3);
    }
    paint.strokeStyle = report.colour("--cut");
    paint.lineWidth = 1.5;
    paint.setLineDash([2, 3]);
    for (const time of data.cuts) {
      if (time < view.start || time > view.end) continue;
      paint.beginPath();
      paint.moveTo(across(time), top);
      paint.lineTo(across(time), top + height);
      paint.stroke();
    }
    paint.setLineDash([]);
  };

  // Runs `call(x, value)` for each bin in view, and `call(null)` where there is no frame.
  const walk = (values, call) => {
    const first = Math.max(0, Math.floor(view.start / curves.step) - 1);
    const last = Math.min(values.length - 1, Math.ceil(view.end / curves.step) + 1);
    for (let bin = first; bin <= last; bin++) {
      if (values[bin] === null) call(null);
      else call(across((bin + 0.5) * curves.step), values[bin]);
    }
  };

  const line = (paint, values, box, most, colour, dash) => {
    paint.strokeStyle = colour;
    paint.lineWidth = 1.8;
    paint.setLineDash(dash);
    paint.beginPath();
    let drawn = false;
    walk(values, (x, value) => {
      if (x === null) {
        drawn = false;
        return;
      }
      const y = box.top + box.height * (1 - value / most);
      if (drawn) paint.lineTo(x, y);
      else paint.moveTo(x, y);
      drawn = true;
    });
    paint.stroke();
    paint.setLineDash([]);
  };

  const area = (paint, low, high) => {
    paint.fillStyle = report.colour("--quality-area");
    walk(low, (x, value) => {
      if (x === null) return;
      const bin = Math.round((timeAt(x) / curves.step) - 0.5);
      const [a, b] = [value, high[bin]].map((v) => QUALITY.top + QUALITY.height * (1 - v));
      const wide = across(curves.step) - across(0);
      paint.fillRect(x - wide / 2, b, Math.max(wide, 1), Math.max(a - b, 0));
    });
  };

  const drawCurves = () => {
    const paint = prepared(curveCanvas, HEIGHT);
    const [dim, rule] = ["--dim", "--line"].map(report.colour);
    const step = tickStep();
    paint.lineWidth = 1;
    for (let tick = Math.ceil(view.start / step) * step; tick <= view.end; tick += step) {
      paint.strokeStyle = rule;
      paint.beginPath();
      paint.moveTo(across(tick), 16);
      paint.lineTo(across(tick), HEIGHT);
      paint.stroke();
      paint.fillStyle = dim;
      const words = step < 1 ? report.clock(tick) : report.clock(tick).replace(/\.\d$/, "");
      const room = paint.measureText(words).width;
      paint.fillText(words, report.limited(across(tick) - room / 2, LEFT, width() - room), 11);
    }
    const most = Math.max(1, ...curves.people.map((v) => v ?? 0));
    paint.fillStyle = dim;
    paint.textAlign = "right";
    for (const [words, y] of [
      ["1", QUALITY.top + 8], ["0", QUALITY.top + QUALITY.height],
      [String(Math.ceil(most)), PEOPLE.top + 8], ["0", PEOPLE.top + PEOPLE.height],
    ]) paint.fillText(words, LEFT - 5, y);
    paint.textAlign = "left";
    paint.save();
    paint.beginPath();
    paint.rect(LEFT, 0, width() - LEFT, HEIGHT);
    paint.clip();
    marks(paint, QUALITY.top, QUALITY.height);
    area(paint, curves.qualityLow, curves.quality);
    line(paint, curves.quality, QUALITY, 1, report.colour("--quality"), []);
    line(paint, curves.weight, QUALITY, 1, report.colour("--weight"), [6, 3]);
    line(paint, curves.people, PEOPLE, Math.ceil(most), report.colour("--people"), []);
    paint.restore();
    paint.fillStyle = dim;
    paint.fillText("people in view", LEFT + 4, PEOPLE.top - 6);
    paint.strokeStyle = dim;
    for (const box of [QUALITY, PEOPLE]) {
      paint.beginPath();
      paint.moveTo(LEFT, box.top + box.height + 0.5);
      paint.lineTo(width(), box.top + box.height + 0.5);
      paint.stroke();
    }
  };

  // Stripes over a bar, in the colour of the page, mark low trust without a colour of their own.
  const stripes = (paint, x, y, wide, high) => {
    paint.save();
    paint.beginPath();
    paint.rect(x, y, wide, high);
    paint.clip();
    paint.strokeStyle = report.colour("--ground");
    paint.lineWidth = 2.5;
    paint.beginPath();
    for (let at = x - high - (x % 7); at < x + wide; at += 7) {
      paint.moveTo(at, y + high);
      paint.lineTo(at + high, y);
    }
    paint.stroke();
    paint.restore();
  };

  const drawLanes = () => {
    const height = Math.max(lanes.length * lane, 1);
    const paint = prepared(laneCanvas, height);
    paint.save();
    paint.beginPath();
    paint.rect(LEFT, 0, width() - LEFT, height);
    paint.clip();
    marks(paint, 0, height);
    const chosen = report.player.chosen();
    for (let track = 0; track < tracks.id.length; track++) {
      if (tracks.end[track] < view.start || tracks.start[track] > view.end) continue;
      if (!report.isShown(track)) continue;
      // A thin line through the gaps of a track, under its bars.
      paint.fillStyle = data.palette[tracks.id[track] % data.palette.length];
      const [x, end] = [across(tracks.start[track]), across(tracks.end[track])];
      paint.fillRect(x, laneOf[track] * lane + lane / 2 - 0.5, Math.max(end - x, 1), 1);
      if (tracks.id[track] === chosen) {
        paint.strokeStyle = report.colour("--ink");
        paint.lineWidth = 2;
        paint.strokeRect(x - 1, laneOf[track] * lane + 1, Math.max(end - x, 1) + 2, lane - 2);
      }
    }
    const gap = lane > 8 ? 2 : 1;
    for (let bar = 0; bar < bars.track.length; bar++) {
      if (bars.end[bar] < view.start || bars.start[bar] > view.end) continue;
      const track = bars.track[bar];
      if (!report.isShown(track)) continue;
      paint.fillStyle = data.palette[tracks.id[track] % data.palette.length];
      const x = across(bars.start[bar]);
      const wide = Math.max(across(bars.end[bar]) - x, 2);
      paint.fillRect(x, laneOf[track] * lane + gap, wide, lane - 2 * gap);
      if (report.isLow(track)) {
        const left = Math.max(x, LEFT);
        const right = Math.min(x + wide, width());
        stripes(paint, left, laneOf[track] * lane + gap, right - left, lane - 2 * gap);
      }
    }
    if (lane >= 11) {
      paint.font = `${Math.min(lane - 3, 11)}px system-ui, sans-serif`;
      for (let track = 0; track < tracks.id.length; track++) {
        const x = Math.max(across(tracks.start[track]), LEFT) + 3;
        if (!report.isShown(track)) continue;
        const words = `${tracks.id[track]}${report.isLow(track) ? "?" : ""}`;
        const wide = paint.measureText(words).width + 4;
        if (across(tracks.end[track]) - x < wide + 2 || x > width()) continue;
        paint.fillStyle = "#000a";
        paint.fillRect(x - 1, laneOf[track] * lane + 3, wide, lane - 6);
        paint.fillStyle = "#fff";
        paint.fillText(words, x + 1, laneOf[track] * lane + lane - 5 + (lane < 14 ? 1 : 0));
      }
    }
    paint.restore();
  };

  const drawCursor = (time) => {
    const inside = time >= view.start && time <= view.end;
    report.byId("cursor").hidden = !inside;
    report.byId("cursor").style.transform = `translateX(${across(time) - 1}px)`;
    curveCanvas.setAttribute("aria-valuenow", time.toFixed(1));
    curveCanvas.setAttribute("aria-valuetext", report.clock(time));
  };

  let asked = 0;
  const draw = () => {
    window.cancelAnimationFrame(asked);
    asked = window.requestAnimationFrame(() => {
      drawCurves();
      drawLanes();
      drawCursor(report.player.now());
    });
  };

  const show = (start, length) => {
    const span = report.limited(length, Math.min(whole, 2), whole);
    view.start = report.limited(start, 0, whole - span);
    view.end = view.start + span;
    draw();
  };

  const zoom = (factor, middle = report.player.now()) => {
    const centre = report.limited(middle, view.start, view.end);
    const length = (view.end - view.start) * factor;
    show(centre - ((centre - view.start) / (view.end - view.start)) * length, length);
  };

  // The track under a point of the lanes, -1 if there is none; a few pixels beside it will do.
  const trackAt = (x, y) => {
    const slack = 4 * (timeAt(1) - timeAt(0));
    const time = timeAt(x);
    const under = (lanes[Math.floor(y / lane)] || []).find((track) =>
      report.isShown(track) &&
      tracks.start[track] - slack <= time && time <= tracks.end[track] + slack);
    return under ?? -1;
  };

  const words = (event, x) => {
    const time = report.limited(timeAt(x), 0, whole);
    const track = event.target === laneCanvas ? trackAt(x, event.offsetY) : -1;
    if (track >= 0) {
      return `track ${tracks.id[track]}, ${report.clock(tracks.start[track])} to ` +
        `${report.clock(tracks.end[track])}, quality ${tracks.quality[track].toFixed(2)}` +
        (tracks.trust[track] === null ? "" : `, trust ${tracks.trust[track].toFixed(2)}`);
    }
    const bin = Math.min(curves.quality.length - 1, Math.floor(time / curves.step));
    const quality = curves.quality[bin];
    return `${report.clock(time)}: ` + (quality === null ? "no frame"
      : `quality ${quality.toFixed(2)}, weight ${curves.weight[bin].toFixed(2)}`);
  };

  let drag = null;
  for (const canvas of [curveCanvas, laneCanvas]) {
    canvas.addEventListener("pointerdown", (event) => {
      drag = { x: event.clientX, start: view.start, moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const x = event.clientX - plot.getBoundingClientRect().left;
      if (drag && (drag.moved || Math.abs(event.clientX - drag.x) > 5)) {
        drag.moved = true;
        show(drag.start - (timeAt(event.clientX - drag.x) - timeAt(0)), view.end - view.start);
      }
      const tip = report.byId("tip");
      tip.hidden = event.pointerType === "touch" || Boolean(drag && drag.moved);
      tip.textContent = words(event, x);
      tip.style.left = `${report.limited(x + 12, 0, Math.max(0, width() - 245))}px`;
      tip.style.top = `${event.clientY - plot.getBoundingClientRect().top + 14}px`;
    });
    canvas.addEventListener("pointerup", (event) => {
      const clicked = drag && !drag.moved;
      drag = null;
      if (!clicked) return;
      const x = event.clientX - plot.getBoundingClientRect().left;
      const track = event.target === laneCanvas ? trackAt(x, event.offsetY) : -1;
      if (track >= 0) report.chooseTrack(track);
      report.player.seek(report.limited(timeAt(x), 0, whole));
    });
    canvas.addEventListener("pointercancel", () => { drag = null; });
    canvas.addEventListener("pointerleave", () => { report.byId("tip").hidden = true; });
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const x = event.clientX - plot.getBoundingClientRect().left;
      zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(x));
    }, { passive: false });
  }
  report.byId("nearer").addEventListener("click", () => zoom(0.5));
  report.byId("farther").addEventListener("click", () => zoom(2));
  report.byId("whole").addEventListener("click", () => show(0, whole));
  curveCanvas.setAttribute("aria-valuemax", whole.toFixed(1));
  report.player.onTime(drawCursor);
  new ResizeObserver(draw).observe(plot);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  report.timeline = { draw, zoom, across, lanes, laneHeight: lane };
  // A track that is chosen elsewhere is scrolled to.
  report.timeline.reveal = (track) => {
    const [top, shown] = [laneOf[track] * lane, lanesView.clientHeight];
    if (top < lanesView.scrollTop || top + lane > lanesView.scrollTop + shown) {
      lanesView.scrollTop = top - shown / 2;
    }
    draw();
  };
})();
