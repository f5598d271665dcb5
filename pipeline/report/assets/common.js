"use strict";
// What all scripts of a page share. Data files set properties of it.
const report = {};

report.byId = (id) => document.getElementById(id);

// A new element with properties; text is set as text, so names with markup stay names.
report.element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

// 3723.4 as 1:02:03.4
report.clock = (seconds) => {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  const rest = `${String(Math.floor((tenths % 600) / 10)).padStart(2, "0")}.${tenths % 10}`;
  if (minutes < 60) return `${minutes}:${rest}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
};

// The colour of a style sheet's variable, for canvases.
report.colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Place of the last value that is at most x, -1 if there is none; values ascend.
report.lastAtMost = (values, x) => {
  let low = -1;
  let high = values.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (values[middle] <= x) low = middle;
    else high = middle - 1;
  }
  return low;
};

report.limited = (value, low, high) => Math.min(Math.max(value, low), high);

// Of a page of a video: whether a track is of low trust, and whether the filter by trust shows it.
report.isLow = (track) => {
  const trust = report.video.tracks.trust[track];
  return trust !== null && trust !== undefined && trust < report.video.lowTrust;
};
report.trustRange = null;
report.isShown = (track) => {
  if (!report.trustRange) return true;
  const trust = report.video.tracks.trust[track];
  const [low, high] = report.trustRange;
  return trust !== null && trust >= low && trust < high;
};
