"use strict";
// The list of videos and the lists of worst GOPs. Returns what draws either anew.

function makeRows(page) {
  const { data, state, videos, get, title, matches, choose, update, $ } = page;

  const FIGURES = /^(?!source_name|status|codec|target$|target_met|policy_rule|job)/;
  const WIDE = new Set(["frames", "gops", "source_bytes", "kbps", "encode_fps", "q_min", "q_max", "codec", "target", "probes", "policy_rule", "text_density", "faces"]);

  function cell(name, value, kind = "td") {
    const made = element(kind, { class: (FIGURES.test(name) ? "n" : "") + (WIDE.has(name) ? " wide" : "") });
    if (name === "status") made.append(element("b", { class: value === "ok" ? "good" : value }, value));
    else made.textContent = name === "at" ? (value === null ? "–" : clock(value)) : figure(value, name);
    return made;
  }

  function nameCell(place, text) {
    const made = element("th", { scope: "row" });
    if (place === null) { made.textContent = text; return made; }
    const button = element("button", { type: "button", title: "Show this video alone" }, text);
    button.addEventListener("click", () => { choose(place); $("course").scrollIntoView(); });
    made.append(button);
    return made;
  }

  function region(label) { return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }); }

  function drawVideos(left) {
    const place = $("video-table"), had = document.activeElement?.dataset?.column;
    if (!videos.length) { place.replaceChildren(element("p", { class: "empty" }, "There are none.")); return; }
    const hidden = new Set(["job", "q_min", "q_max", "later_job", "frames"]);
    if (new Set(videos.map((video) => get(video, "codec")).filter((one) => one !== null)).size < 2) hidden.add("codec");
    const shown = data.videos.columns.filter((name) => !hidden.has(name));
    const head = element("tr");
    for (const name of shown) {
      const button = element("button", { type: "button", "data-column": name }, title(name) + (state.sort === name ? (state.down ? " ↓" : " ↑") : ""));
      button.addEventListener("click", () => { state.down = state.sort === name && !state.down; state.sort = name; update(); });
      const holder = element("th", { scope: "col", class: (FIGURES.test(name) ? "n" : "") + (WIDE.has(name) ? " wide" : ""), "aria-sort": state.sort === name ? (state.down ? "descending" : "ascending") : "none" }, button);
      head.append(holder);
    }
    const order = state.down ? -1 : 1;
    const rows = [...left].sort((a, b) => {
      const p = get(a, state.sort), q = get(b, state.sort);
      if (p === null || q === null) return (p === null) - (q === null);
      return order * (typeof p === "string" ? p.localeCompare(q) : p - q);
    });
    const body = element("tbody");
    for (const video of rows.slice(0, state.shown)) {
      const row = element("tr", state.video === video.place ? { class: "selected" } : {});
      for (const name of shown) row.append(name === "source_name" ? nameCell(video.place, get(video, name)) : cell(name, get(video, name)));
      body.append(row);
    }
    const holder = region("Videos");
    holder.append(element("table", {}, element("thead", {}, head), body));
    const parts = [holder];
    if (!rows.length) parts.push(element("p", { class: "empty" }, "The filters leave no video."));
    if (rows.length > state.shown) {
      const button = element("button", { type: "button", class: "more" }, `Show ${Math.min(200, rows.length - state.shown)} more of ${figure(rows.length)}`);
      button.addEventListener("click", () => { state.shown += 200; update(); });
      parts.push(button);
    }
    place.replaceChildren(...parts);
    if (had) place.querySelector(`[data-column="${had}"]`)?.focus();
  }

  function drawWorst() {
    const place = $("worst-table"), table = data.worst.find((one) => one.name === $("worst-metric").value);
    if (!table || !table.rows.length) { place.replaceChildren(element("p", { class: "empty" }, "Nothing was measured: no GOP is known to be worse than another.")); return; }
    const at = table.columns.indexOf("source_name") + 1;
    const left = table.rows.filter((row) => {
      if (row[0] !== null) return matches(videos[row[0]]);
      return state.video === null && !state.status && row[at].toLowerCase().includes(state.text);
    });
    const head = element("tr"), body = element("tbody");
    for (const name of table.columns) head.append(element("th", { scope: "col", class: (FIGURES.test(name) ? "n" : "") + (WIDE.has(name) ? " wide" : "") }, title(name)));
    for (const row of left) {
      const line = element("tr");
      table.columns.forEach((name, number) => line.append(name === "source_name" ? nameCell(row[0], row[number + 1]) : cell(name, row[number + 1])));
      body.append(line);
    }
    const holder = region("Worst GOPs");
    holder.append(element("table", {}, element("thead", {}, head), body));
    place.replaceChildren(left.length ? holder : element("p", { class: "empty" }, "None of the worst GOPs belongs to what the filters leave."));
  }

  return { drawVideos, drawWorst };
}
