
// ---- the timeline: plotly draws it, from the data of the page; it is unpacked from the page itself ----
const MIB = 1024 * 1024;
const PATTERNS = { "/": "/", "\\": "\\", ".": ".", x: "x", "+": "+", o: "." };
const DARK_BANDS = { setup: "#15171a", swap: "#3a2430", forward: "#15171a", backward: "#31353a", recompute: "#3a3120", optimizer: "#1d303d", inference: "#1f3329" };
const element = (id) => document.getElementById(id);

function mib(bytes) {
  return (bytes / MIB).toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

function sized(bytes) {
  const size = Math.abs(bytes);
  if (size >= MIB / 10) return mib(bytes) + " MiB";
  return size >= 1024 ? (bytes / 1024).toFixed(1) + " KiB" : bytes + " B";
}

function summed(differences) {
  let value = 0;
  return differences.map((difference) => (value += difference));
}

// plotly reads a little markup in its labels; a name holds none
const literal = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** A variant's arrays, unpacked: instants, bytes by role, their total, and in words what led to each instant. */
function unpack(data, variant) {
  const at = summed(variant.at);
  const roles = {};
  for (const [role, differences] of Object.entries(variant.roles)) roles[role] = summed(differences);
  const total = at.map((_, i) => Object.values(roles).reduce((sum, sizes) => sum + sizes[i], 0));
  const names = Object.fromEntries(data.roles.map((role) => [role.key, role.name]));
  const events = at.map((_, i) => {
    if (i === 0) return { phase: "before the step", who: "what is held", what: "as the step begins" };
    const word = (column) => data.words[variant[column][i - 1]];
    const bytes = variant.bytes[i - 1];
    const where = word("module") ? " in " + word("module") : "";
    const role = names[word("role")] ?? word("role");
    const change = bytes < 0 ? "frees " + sized(-bytes) : "allocates " + sized(bytes);
    return { phase: word("phase"), who: word("op") + where, what: `${change} of ${role}` };
  });
  return { at, roles, total, events, last: variant.instants - 1 };
}

class Timeline {
  constructor(data) {
    this.data = data;
    this.plot = element("timeline-plot");
    this.hidden = new Set();
    this.spoken = 0;
  }

  show(place) {
    this.variant = this.data.variants[place];
    this.now = unpack(this.data, this.variant);
    const slider = element("timeline-instant");
    slider.max = this.now.at.length - 1;
    this.instant = this.variant.peak;
    slider.value = this.instant;
    this.range = [0, Math.max(this.now.last, 1)];
    this.draw();
    this.buildKey();
    this.read();
    const shown = this.now.at.length;
    element("timeline-thinned").textContent = shown < this.variant.instants
      ? `${shown.toLocaleString("en")} of ${this.variant.instants.toLocaleString("en")} instants are drawn: the highest, the lowest and the last of each stretch. The peak is exact.`
      : "";
  }

  roles() {
    return this.data.roles.filter((role) => role.key in this.now.roles);
  }

  visibleTotal() {
    const kept = this.roles().filter((role) => !this.hidden.has(role.key));
    return this.now.at.map((_, i) => kept.reduce((sum, role) => sum + this.now.roles[role.key][i], 0));
  }

  traces(colors) {
    const { at, total, events } = this.now;
    const line = (shown, width, color) => ({ shape: "hv", width, color });
    const said = total.map((bytes, i) => `<b>${mib(bytes)} MiB</b> in all, ${literal(events[i].phase)}<br>${literal(events[i].who)}<br>${literal(events[i].what)}`);
    const areas = this.roles().map((role) => ({
      type: "scatter", mode: "lines", x: at, y: this.now.roles[role.key].map((bytes) => bytes / MIB),
      stackgroup: "live", name: role.name, meta: role.key, visible: !this.hidden.has(role.key),
      line: line(at, 0.6, colors.edge), fillcolor: role.color,
      fillpattern: role.hatch ? { shape: PATTERNS[role.hatch] ?? "", bgcolor: role.color, fgcolor: "#333", size: 5, solidity: 0.15 } : undefined,
      text: this.now.roles[role.key].map((bytes) => sized(bytes)),
      hovertemplate: `%{text} ${role.name}<extra></extra>`,
    }));
    const whole = {
      type: "scatter", mode: "lines", x: at, y: this.visibleTotal().map((bytes) => bytes / MIB), name: "in all",
      line: line(at, 1.2, colors.ink), text: said, hovertemplate: "%{text}<extra></extra>",
    };
    return [whole, ...areas.reverse()].reverse();
  }

  bands(colors) {
    return this.variant.bands.map(([start, end, phase]) => ({
      type: "rect", layer: "below", xref: "x", yref: "paper", x0: start, x1: end, y0: 0, y1: 1, line: { width: 0 },
      fillcolor: colors.bands[phase] ?? colors.paper,
    }));
  }

  cursor(colors) {
    const x = this.now.at[this.instant];
    return { type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: colors.ink, width: 1, dash: "dot" } };
  }

  colors() {
    const dark = isDark();
    return dark
      ? { ink: "#e7e5e0", quiet: "#a8a69f", paper: "#15171a", raised: "#1d2024", edge: "#15171a", bands: DARK_BANDS }
      : { ink: "#1d1d1b", quiet: "#5b5a55", paper: "#ffffff", raised: "#ffffff", edge: "#333333", bands: this.data.phases };
  }

  draw() {
    const colors = this.colors();
    const peak = this.now.total[this.variant.peak];
    const narrow = this.plot.clientWidth < 600;
    const layout = {
      margin: { l: narrow ? 44 : 58, r: 12, t: 26, b: 44 }, autosize: true, showlegend: false, hovermode: "x unified",
      dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: colors.paper,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colors.ink },
      hoverlabel: { bgcolor: colors.raised, bordercolor: colors.quiet, font: { color: colors.ink, size: 12 }, namelength: -1 },
      xaxis: { title: { text: "allocations and frees, in order", standoff: 8 }, range: this.range.slice(), tickformat: ",d", hoverformat: ",d", showgrid: false, zeroline: false, nticks: narrow ? 5 : 10, unifiedhovertitle: { text: "instant %{x}" } },
      yaxis: { title: { text: "live tensor bytes, MiB", standoff: 6 }, rangemode: "tozero", fixedrange: true, gridcolor: colors.quiet + "33", zeroline: false },
      shapes: [...this.bands(colors), this.cursor(colors)],
      annotations: [{ x: this.now.at[this.variant.peak], y: peak / MIB, text: `peak ${mib(peak)} MiB`, showarrow: true, arrowhead: 0, arrowwidth: 1, arrowcolor: colors.ink, ax: 0, ay: -14, font: { size: 12, color: colors.ink } }],
    };
    const options = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };
    Plotly.react(this.plot, this.traces(colors), layout, options);
  }

  buildKey() {
    const fieldset = element("timeline-roles");
    for (const label of fieldset.querySelectorAll("label")) label.remove();
    for (const role of this.roles()) {
      const box = Object.assign(document.createElement("input"), { type: "checkbox", value: role.key, checked: !this.hidden.has(role.key) });
      const label = document.createElement("label");
      label.append(box, swatch(role.color), role.name);
      box.addEventListener("change", () => {
        if (box.checked) this.hidden.delete(role.key); else this.hidden.add(role.key);
        this.draw();
        this.read();
      });
      fieldset.append(label);
    }
    this.buildPhases();
  }

  buildPhases() {
    const colors = this.colors();
    const used = new Set(this.variant.bands.map((band) => band[2]));
    element("timeline-phases").replaceChildren(...Object.keys(this.data.phases).filter((phase) => used.has(phase)).map((phase) => {
      const entry = document.createElement("span");
      entry.append(swatch(colors.bands[phase]), phase);
      return entry;
    }));
  }

  /** Say what is live at the slider's instant; a screen reader hears it. */
  read() {
    const { at, roles, total, events } = this.now;
    const i = this.instant;
    const first = document.createElement("p");
    const bold = document.createElement("strong");
    bold.textContent = `${mib(total[i])} MiB`;
    first.append(`Instant ${at[i].toLocaleString("en")} of ${this.now.last.toLocaleString("en")}: `, bold, ` in all, ${events[i].phase}; ${events[i].who} ${events[i].what}.`);
    const second = document.createElement("p");
    second.textContent = this.roles().filter((role) => roles[role.key][i] && !this.hidden.has(role.key))
      .map((role) => `${role.name} ${sized(roles[role.key][i])}`).join(", ") || "no byte of the roles shown";
    element("timeline-readout").replaceChildren(first, second);
    element("timeline-instant").setAttribute("aria-valuetext", `instant ${at[i]}, ${mib(total[i])} MiB, ${events[i].phase}`);
  }

  walk(instant) {
    this.instant = Math.min(Math.max(instant, 0), this.now.at.length - 1);
    element("timeline-instant").value = this.instant;
    const x = this.now.at[this.instant];
    const place = `shapes[${this.variant.bands.length}]`;
    const change = { [`${place}.x0`]: x, [`${place}.x1`]: x };
    const [low, high] = this.range;
    if (x < low || x > high) {
      const half = (high - low) / 2;
      this.range = this.within(x - half, x + half);
      change["xaxis.range"] = this.range.slice();
    }
    Plotly.relayout(this.plot, change);
    this.read();
  }

  within(low, high) {
    const last = Math.max(this.now.last, 1);
    const width = Math.min(Math.max(high - low, 4), last);
    const start = Math.min(Math.max(low, 0), last - width);
    return [start, start + width];
  }

  /** Make the shown stretch `factor` times as wide, about the slider's instant where that is in sight. */
  zoom(factor) {
    const [low, high] = this.range;
    const x = this.now.at[this.instant];
    const middle = x >= low && x <= high ? x : (low + high) / 2;
    const half = ((high - low) * factor) / 2;
    this.range = this.within(middle - half, middle + half);
    Plotly.relayout(this.plot, { "xaxis.range": this.range.slice() });
  }

  reset() {
    this.range = [0, Math.max(this.now.last, 1)];
    Plotly.relayout(this.plot, { "xaxis.range": this.range.slice() });
  }

  listen() {
    element("timeline-variant").addEventListener("change", (event) => this.show(Number(event.target.value)));
    element("timeline-instant").addEventListener("input", (event) => this.walk(Number(event.target.value)));
    element("zoom-in").addEventListener("click", () => this.zoom(0.5));
    element("zoom-out").addEventListener("click", () => this.zoom(2));
    element("zoom-reset").addEventListener("click", () => this.reset());
    element("to-peak").addEventListener("click", () => this.walk(this.variant.peak));
    document.addEventListener("themechange", () => { this.draw(); this.buildPhases(); });
    this.plot.on("plotly_relayout", (change) => {
      if ("xaxis.range[0]" in change) this.range = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    });
    this.plot.on("plotly_doubleclick", () => this.reset());
    this.plot.on("plotly_click", (event) => this.walk(event.points[0].pointNumber));
  }
}

function swatch(color) {
  const mark = document.createElement("span");
  mark.className = "swatch";
  mark.style.background = color;
  return mark;
}

async function unpackLibrary() {
  const packed = atob(element("library").textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

async function startTimeline() {
  if (typeof DecompressionStream === "undefined") return; // the sentence in the page says so
  await unpackLibrary();
  const data = JSON.parse(element("timeline-data").textContent);
  const timeline = new Timeline(data);
  const select = element("timeline-variant");
  data.variants.forEach((variant, i) => select.append(new Option(variant.name, i)));
  element("timeline-static").hidden = true;
  element("timeline-live").hidden = false;
  timeline.show(0);
  timeline.listen();
  element("timeline-live").dataset.ready = "true";
}

startTimeline();
