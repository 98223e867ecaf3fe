"use strict";
// How many GOPs have which rate, quality, index and speed.

function makeHistograms(page) {
  const { data, $ } = page, place = $("histograms");
  if (!data.histograms.length) place.append(element("p", { class: "empty" }, "There are no figures."));
  for (const one of data.histograms) {
    const holder = element("div", {});
    place.append(holder);
    responsive(holder, (_, width) => drawHistogram(page.title, holder, one, width))();
  }
}

function drawHistogram(title, holder, one, width) {
  const height = 150, box = { left: 34, right: width - 14, top: 10, bottom: height - 24 };
  const most = Math.max(...one.counts), total = one.counts.reduce((a, b) => a + b, 0), count = one.counts.length;
  const name = one.figure === "bpp" ? "Bits per pixel" : one.figure === "q" ? "Quality index q" : one.figure === "encode_fps" ? "Encoding, frames a second" : title(one.figure);
  if (count === 1) {
    const [from, to] = [one.low, one.low + one.step].map((value) => String(+value.toPrecision(4)));
    const value = one.figure === "q" || from === to ? from : `${from} to ${to}`;
    holder.replaceChildren(element("h4", {}, name), element("p", { class: "empty" }, `${value} for all ${figure(total)}`));
    return;
  }
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${name}: ${total} GOPs from ${+one.low.toPrecision(4)} to ${+(one.low + one.step * count).toPrecision(4)}` });
  const high = one.low + one.step * count, centred = one.figure === "q" ? one.step / 2 : 0;
  const x = scale([one.low, high], [box.left, box.right]), y = scale([0, most], [box.bottom, box.top]);
  const ticks = linearTicks(one.low, high, Math.max(2, width / 75)).filter(({ value }) => !centred || (value < high && Number.isInteger(value)));
  drawAxes(picture, box, (value) => x(value + centred), y, ticks, linearTicks(0, most, 3).filter(({ value }) => Number.isInteger(value)));
  const digits = Math.max(0, -Math.floor(Math.log10(one.step) + 1e-9));
  one.counts.forEach((number, at) => {
    const left = x(one.low + at * one.step), wide = Math.max(1, x(one.low + (at + 1) * one.step) - left - 1);
    const from = (one.low + at * one.step).toFixed(digits), to = (one.low + (at + 1) * one.step).toFixed(digits);
    const below = at === 0 && one.below, above = at === count - 1 && one.above;
    const range = one.figure === "q" ? from : below ? `≤ ${to}` : above ? `≥ ${from}` : `${from} to ${to}`;
    const bar = svg("rect", { class: "bar", x: left, width: wide, y: y(number), height: Math.max(number ? 1 : 0, box.bottom - y(number)) });
    bar.addEventListener("pointermove", (event) => tip.show(`${name}\n${range}\n${figure(number)} GOPs, ${(100 * number / total).toFixed(1)} %`, event.clientX, event.clientY));
    bar.addEventListener("pointerleave", () => tip.hide());
    picture.append(bar);
    if (below) picture.append(svg("text", { x: left, y: box.top, "text-anchor": "start" }, "≤"));
    if (above) picture.append(svg("text", { x: left + wide, y: box.top, "text-anchor": "end" }, "≥"));
  });
  holder.replaceChildren(element("h4", {}, name), picture);
}
