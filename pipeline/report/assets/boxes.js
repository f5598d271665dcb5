"use strict";
// Boxes by time. They lie in scripts of their own, which are loaded when their time is shown.
(() => {
  const KEPT = 8; // chunks in memory
  const chunks = new Map(); // number -> arrays, "loading" or "failed"
  const starts = report.video.chunks;
  let changed = () => {};

  const array = (text, Kind) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Kind(bytes.buffer);
  };

  report.addBoxes = (number, packed) => {
    for (const old of chunks.keys()) {
      if (chunks.size <= KEPT) break;
      if (Math.abs(old - number) > 1) chunks.delete(old);
    }
    chunks.set(number, {
      times: array(packed.times, Float64Array),
      first: array(packed.first, Uint32Array),
      ids: array(packed.ids, Uint32Array),
      corners: array(packed.corners, Uint16Array),
      scores: array(packed.scores, Uint8Array),
    });
    changed();
  };

  const chunk = (number) => {
    const found = chunks.get(number);
    if (found) return typeof found === "string" ? null : found;
    if (number < 0 || number >= starts.length) return null;
    chunks.set(number, "loading");
    const script = report.element("script", { src: `boxes-${number}.js` });
    script.onload = () => script.remove();
    script.onerror = () => chunks.set(number, "failed");
    document.head.append(script);
    return null;
  };

  // A stored time may be later than the browser's by rounding.
  const slack = () => 0.3 * report.video.interval;

  // The last frame at or before a time, as {time, boxes}; null before its chunk is there.
  report.boxesAt = (time) => {
    const number = Math.max(0, report.lastAtMost(starts, time + slack()));
    const found = chunk(number);
    if (number + 1 < starts.length && starts[number + 1] - time < 5) chunk(number + 1);
    if (!found) return null;
    const frame = Math.max(0, report.lastAtMost(found.times, time + slack()));
    const boxes = [];
    for (let row = found.first[frame]; row < found.first[frame + 1]; row++) {
      const [left, top, right, bottom] = found.corners.subarray(4 * row, 4 * row + 4);
      boxes.push({
        id: found.ids[row], score: found.scores[row] / 255,
        left: left / 65535, top: top / 65535, right: right / 65535, bottom: bottom / 65535,
      });
    }
    return { time: found.times[frame], boxes };
  };

  // Time of the frame so many frames after the one that is shown at a time.
  report.frameFrom = (time, steps) => {
    const number = Math.max(0, report.lastAtMost(starts, time + slack()));
    const found = chunk(number);
    if (!found) return time + steps * report.video.interval;
    const wanted = Math.max(0, report.lastAtMost(found.times, time + slack())) + steps;
    if (wanted < 0) return number ? starts[number] - report.video.interval : found.times[0];
    if (wanted < found.times.length) return found.times[wanted];
    return number + 1 < starts.length ? starts[number + 1] : found.times[found.times.length - 1];
  };

  report.onBoxes = (call) => { changed = call; };
})();
