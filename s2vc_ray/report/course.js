"use strict";
// One video over time: quality above, rate below. Returns what draws it anew.

function makeCourse(page) {
  const { data, state, metrics, names, videos, get, matches, fillMetrics, $ } = page;
  const courses = Object.keys(data.timelines).map(Number).sort((a, b) => a - b);
  const place = $("timeline");

  function draw(_, width) {
    place.replaceChildren();
    tip.hide();
    const left = courses.filter((at) => matches(videos[at]));
    if (state.course === null || !matches(videos[state.course])) state.course = left.length ? left[0] : null;
    const at = left.indexOf(state.course), line = data.timelines[state.course];
    $("previous").disabled = !left.length || at === 0;
    $("next").disabled = !left.length || at === left.length - 1;
    $("course-note").textContent = "";
    $("course-name").textContent = state.course === null ? "" : get(videos[state.course], "source_name");
    if (!line) {
      const why = !courses.length ? "No video here was compressed." : state.course === null ? "No video that the filters leave has a course in this file." : "This file holds no course of this video: it failed, or it is beyond those that the file has room for.";
      place.append(element("p", { class: "empty" }, why));
      return;
    }
    const metric = names.get($("course-metric").value);
    const height = metric ? 360 : 190, right = width - 12, split = metric ? 210 : 0;
    const upper = { left: 56, right, top: 26, bottom: split - 10 }, lower = { left: 56, right, top: split + 24, bottom: height - 26 };
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, tabindex: 0, role: "application", "aria-label": `Course of ${get(videos[state.course], "source_name")}: arrow keys go from GOP to GOP` });
    const span = [Math.min(0, line.at[0]), Math.max(...line.until.filter((one) => one !== null), line.at[line.at.length - 1])];
    if (span[1] <= span[0]) span[1] = span[0] + 1;
    const x = scale(span, [56, right]), ends = line.at.map((from, number) => line.until[number] ?? line.at[number + 1] ?? span[1]);
    const ticks = clockTicks(...span, Math.max(3, width / 80));
    const rate = [0, Math.max(...line.bpp) * 1.06 || 1], rateY = scale(rate, [lower.bottom, lower.top]);
    drawAxes(picture, lower, x, rateY, ticks, linearTicks(...rate, 3), "", "Rate, bits per pixel");
    line.bpp.forEach((value, number) => picture.append(svg("rect", { class: "bar", x: x(line.at[number]).toFixed(1), y: rateY(value).toFixed(1), width: Math.max(0.5, x(ends[number]) - x(line.at[number]) - (line.bpp.length < 200 ? 1 : 0)).toFixed(1), height: Math.max(0.5, lower.bottom - rateY(value)).toFixed(1) })));
    if (metric) {
      const mean = line[metric.name + "_mean"], worst = line[metric.name + "_worst"];
      const y = scale(extent([...mean, ...worst]), [upper.bottom, upper.top]);
      drawAxes(picture, upper, x, y, [], linearTicks(...extent([...mean, ...worst]), 5), "", metric.label + (metric.unit ? `, ${metric.unit}` : "") + (metric.higher ? " (higher is better)" : " (lower is better)"));
      for (const [kind, values] of [["mean", mean], ["worst", worst]]) {
        let path = "", drawn = false;
        values.forEach((value, number) => {
          if (value === null) { drawn = false; return; }
          path += `${drawn ? "L" : "M"}${x(line.at[number]).toFixed(1)} ${y(value).toFixed(1)}H${x(ends[number]).toFixed(1)}`;
          drawn = true;
        });
        picture.append(svg("path", { class: kind, d: path }));
      }
    }
    const cursor = svg("rect", { class: "cursor", y: metric ? upper.top : lower.top, height: lower.bottom - (metric ? upper.top : lower.top), fill: "none", visibility: "hidden" });
    picture.append(cursor);
    let active = -1, pointed = false;
    const activate = (number, clientX, clientY) => {
      active = number;
      if (number < 0) { cursor.setAttribute("visibility", "hidden"); tip.hide(); return; }
      cursor.setAttribute("x", x(line.at[number]));
      cursor.setAttribute("width", Math.max(1, x(ends[number]) - x(line.at[number])));
      cursor.setAttribute("visibility", "visible");
      const last = line.gop[number] + line.per - 1, lines = [(line.per > 1 ? `GOPs ${line.gop[number]} to ${last}` : `GOP ${line.gop[number]}`) + ` at ${clock(line.at[number])}`, `${figure(line.bpp[number], "bpp")} bpp, q ${figure(line.q[number], "q")}`];
      for (const one of metrics) if (line[one.name + "_mean"][number] !== null) lines.push(`${one.label} ${figure(line[one.name + "_mean"][number], one.name + "_mean")}, worst ${figure(line[one.name + "_worst"][number], one.name + "_worst")}`);
      const box = picture.getBoundingClientRect();
      tip.show(lines.join("\n"), clientX ?? box.x + x(line.at[number]) * box.width / width, clientY ?? box.y + 40);
      picture.setAttribute("aria-label", lines.join(", "));
    };
    picture.addEventListener("pointermove", (event) => {
      if (!moved(event)) return;
      pointed = true;
      const box = picture.getBoundingClientRect(), px = (event.clientX - box.x) * width / box.width;
      const number = line.at.findIndex((from, one) => px >= x(from) && px < x(ends[one]));
      activate(number, event.clientX, event.clientY);
    });
    picture.addEventListener("pointerleave", () => { if (pointed) activate(-1); });
    picture.addEventListener("blur", () => activate(-1));
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { pointed = false; activate(Math.min(line.at.length - 1, Math.max(0, active + step))); event.preventDefault(); }
      if (event.key === "Escape") activate(-1);
    });
    const legend = element("p", { class: "legend" });
    if (metric) legend.append(element("span", { class: "mean" }, "mean of the measured frames"), element("span", { class: "worst" }, "worst frame"));
    legend.append(element("span", { class: "rate" }, "rate"));
    place.append(picture, legend);
    if (line.per > 1) $("course-note").textContent = `Each step is ${line.per} GOPs: their mean rate and quality, and their worst frame.`;
  }

  const redraw = responsive(place, draw);
  fillMetrics("course-metric", () => redraw(), "lpips_alex");
  const go = (step) => {
    const left = courses.filter((at) => matches(videos[at]));
    const to = left[left.indexOf(state.course) + step];
    if (to !== undefined) { state.course = to; redraw(); }
  };
  $("previous").addEventListener("click", () => go(-1));
  $("next").addEventListener("click", () => go(1));
  return redraw;
}
