"use strict";
// Small pieces of charts in SVG: elements, scales, ticks, axes, tips. Text is only ever set as text.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function figure(value, name = "") {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string") return value;
  if (name.endsWith("_bytes")) return bytes(value);
  if (name === "seconds") return duration(value);
  const counted = Number.isInteger(value) && !/^(bpp|kbps|ratio|encode|at$)|_(mean|worst)$/.test(name);
  if (counted) return value.toLocaleString("en").replaceAll(",", "\u202f");
  if (/^(psnr|vmaf)/.test(name)) return value.toFixed(2);
  if (/^(kbps|ratio|encode|at$|q$)/.test(name)) return value.toFixed(1);
  return value.toFixed(4);
}

function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (Math.abs(value) >= 1000 && at < units.length - 1) { value /= 1000; at += 1; }
  return (at ? value.toFixed(1) : value.toFixed(0)) + " " + units[at];
}

function duration(seconds) {
  const whole = Math.round(seconds), two = (number) => String(number).padStart(2, "0");
  if (seconds < 10) return seconds.toFixed(1) + " s";
  if (whole < 60) return whole + " s";
  if (whole < 3600) return Math.floor(whole / 60) + " min " + two(whole % 60) + " s";
  return Math.floor(whole / 3600) + " h " + two(Math.floor(whole % 3600 / 60)) + " min";
}

// A place in a video: 12:34.5
function clock(seconds) {
  const tenths = Math.round(seconds * 10), minutes = Math.floor(tenths / 600);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  if (minutes < 60) return minutes + ":" + rest;
  return Math.floor(minutes / 60) + ":" + String(minutes % 60).padStart(2, "0") + ":" + rest;
}

function roundStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].find((factor) => step <= factor * power * 1.000001) * power;
}

// Ticks within [low, high], and how to write them.
function linearTicks(low, high, most) {
  const step = roundStep((high - low) / Math.max(1, most));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) ticks.push(at * step);
  return ticks.map((value) => ({ value, text: Math.abs(value) >= 1e5 ? value.toPrecision(3) : value.toFixed(digits) }));
}

function logTicks(low, high, factors = [1, 2, 5]) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push({ value, text: String(+value.toPrecision(3)) });
    }
  }
  if (ticks.length < 4 && factors.length === 3) return logTicks(low, high, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  return ticks.length > 1 ? ticks : linearTicks(low, high, 4);
}

function clockTicks(low, high, most) {
  const steps = [0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000];
  const step = steps.find((one) => (high - low) / one <= most) || roundStep((high - low) / most);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + 1e-9; at += 1) {
    const text = clock(at * step);
    ticks.push({ value: at * step, text: step >= 1 ? text.slice(0, -2) : text });
  }
  return ticks;
}

// A range that is never empty and, on a linear axis, has some room at both ends.
function extent(values, log = false) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
  if (low > high) return log ? [0.01, 1] : [0, 1];
  if (log) return low === high ? [low / 1.5, high * 1.5] : [low / 1.08, high * 1.08];
  const room = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.05 || 1;
  return [low - room, high + room];
}

function scale([low, high], [from, to], log = false) {
  const warp = log ? Math.log : (value) => value;
  const span = warp(high) - warp(low) || 1;
  return (value) => from + (warp(value) - warp(low)) / span * (to - from);
}

// Frame, ticks and titles of a plot; `box` is {left, right, top, bottom} in the picture.
function drawAxes(picture, box, x, y, xTicks, yTicks, xTitle, yTitle) {
  picture.append(svg("path", { class: "axis", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}` }));
  let free = -Infinity;
  for (const { value, text } of xTicks) {
    const at = x(value);
    picture.append(svg("path", { class: "axis", d: `M${at} ${box.bottom}v4` }));
    const half = text.length * 3.6;
    if (at - half > free) {
      picture.append(svg("text", { x: at, y: box.bottom + 18, "text-anchor": "middle" }, text));
      free = at + half + 6;
    }
  }
  for (const { value, text } of yTicks) {
    const at = y(value);
    picture.append(svg("path", { class: "axis", "stroke-dasharray": "2 4", d: `M${box.left} ${at}H${box.right}` }));
    picture.append(svg("text", { x: box.left - 7, y: at + 4, "text-anchor": "end" }, text));
  }
  if (xTitle) picture.append(svg("text", { class: "title", x: box.right, y: box.bottom + 34, "text-anchor": "end" }, xTitle));
  if (yTitle) picture.append(svg("text", { class: "title", x: box.left - 40, y: box.top - 9 }, yTitle));
}

// A picture as wide as its place, drawn anew when that changes.
function responsive(place, draw) {
  let width = -1;
  const redraw = () => {
    width = Math.round(place.clientWidth);
    draw(place, Math.max(280, width));
  };
  new ResizeObserver(() => { if (Math.round(place.clientWidth) !== width) redraw(); }).observe(place);
  return redraw;
}

const tip = {
  show(text, x, y) {
    const box = document.getElementById("tip");
    box.textContent = text;
    box.hidden = false;
    const room = document.documentElement.clientWidth - box.offsetWidth - 8;
    box.style.left = Math.max(4, Math.min(x + 14, room)) + window.scrollX + "px";
    box.style.top = (y + 18 + box.offsetHeight > window.innerHeight ? y - box.offsetHeight - 10 : y + 18) + window.scrollY + "px";
  },
  hide() { document.getElementById("tip").hidden = true; },
};

// Whether the pointer itself moved: browsers also tell of one that rests while the page moves below it.
const moved = (() => {
  let last = "";
  return (event) => {
    const at = `${event.screenX} ${event.screenY}`, changed = at !== last;
    last = at;
    return changed;
  };
})();
