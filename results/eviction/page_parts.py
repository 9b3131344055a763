"""How the page of an eviction looks, and what its slider does."""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1b1e21; --dim: #6d7278; --line: #d9dce0; --tint: 0, 114, 178;
  --run: #b34700; --most: .42; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15181b; --text: #e8eaec; --dim: #8f969d; --line: #363b41; --tint: 86, 180, 233; --run: #f0994d;
    --most: .45; }
}
body { background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto;
  max-width: 68rem; padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .8rem; }
h2 { font-size: 1rem; margin: 0 0 .3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0 0 1rem; }
dt, small, i, td:first-child { color: var(--dim); }
dd { margin: 0; }
pre { font: 13.5px/1.75 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; margin: 0; tab-size: 4;
  overflow-wrap: anywhere; white-space: pre-wrap; }
.answers { display: flex; flex-wrap: wrap; gap: 1rem; margin-bottom: 1rem; }
.answers section { border: 1px solid var(--line); border-radius: 6px; flex: 1 1 24rem; padding: .6rem .9rem; }
.controls { background: var(--page); border-bottom: 1px solid var(--line); margin-bottom: .8rem; padding: .3rem 0 .5rem;
  position: sticky; top: 0; z-index: 1; }
.controls p { margin: .15rem 0; }
.controls label { margin-right: .8rem; }
#layer { vertical-align: middle; width: min(24rem, 45vw); }
#said { display: inline-block; font-variant-numeric: tabular-nums; min-width: 19rem; }
#map { border: 1px solid var(--line); cursor: crosshair; display: block; height: 92px; margin-top: .3rem; width: 100%;
  box-sizing: border-box; }
.scriptless .script { display: none; }
i { font-style: normal; opacity: .6; }
span[class^=h] { border-radius: 2px; padding: 1px 0; }
.h0 { color: var(--dim); text-decoration: line-through; text-decoration-thickness: 1px; }
.h1 { color: color-mix(in srgb, var(--text) 45%, var(--dim)); }
LEVELS.safe { text-decoration-line: underline; text-decoration-style: dotted; text-underline-offset: 3px; }
.special { font-size: .85em; opacity: .8; }
.here { outline: 2px solid var(--run); }
.run { border-left: 2px solid var(--run); color: var(--run); font: 600 10px/1 system-ui, sans-serif; margin: 0 2px;
  padding-left: 2px; user-select: none; vertical-align: super; }
.left .h0 { display: none; }
.left .h0 + span:not(.h0)::before { color: var(--dim); content: "⋯"; font-size: .8em; }
details { border-top: 1px solid var(--line); margin-top: 1.2rem; padding-top: .6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: .5rem; }
th, td { padding: .1rem .9rem; text-align: right; }
""".replace(
    "LEVELS",
    "".join(f".h{n} {{ background: rgba(var(--tint), calc(var(--most) * {n / 8:.3f})); }}\n" for n in range(1, 9)),
)

SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const spans = [...document.querySelectorAll("#prompt > span")];
const slider = document.getElementById("layer"), said = document.getElementById("said");
const map = document.getElementById("map"), everything = data.held[0].length, layers = data.held.length;
const heads = data.heads.reduce((a, b) => a + b, 0);
const first = [];  // the first token of each span
let token = 0;
for (const span of spans) { first.push(token); token += Number(span.dataset.n || 1); }

const held = data.held.map((row, l) => Float64Array.from(row, (digit) => parseInt(digit, 36) / data.tops[l]));
const whole = new Float64Array(everything);  // over all heads of all layers
held.forEach((row, l) => row.forEach((part, t) => { whole[t] += part * data.heads[l] / heads; }));

function level(part) {
  return part <= 0 ? 0 : part >= 1 - 1e-6 ? 8 : Math.min(7, 1 + Math.floor(part * 7));
}

function show(layer) {
  const row = layer < 0 ? whole : held[layer];
  said.textContent = layer < 0 ? "all " + layers + " layers" : data.said[layer];
  spans.forEach((span, i) => {
    const count = Number(span.dataset.n || 1);
    const part = row.subarray(first[i], first[i] + count).reduce((a, b) => a + b, 0) / count;
    span.className = span.className.replace(/^h\\d/, "h" + level(part));
    const name = count > 1 ? "tokens " + first[i] + "-" + (first[i] + count - 1) : "token " + first[i];
    const who = layer < 0 ? "all layers and heads" : "the " + data.heads[layer] + " heads of layer " + layer;
    span.title = name + " · held by " + Math.round(100 * part) + "% of " + who;
  });
  draw(layer);
}

function draw(chosen) {
  const scale = window.devicePixelRatio || 1, wide = map.width = Math.round(map.clientWidth * scale);
  const high = map.height = Math.round(map.clientHeight * scale), pen = map.getContext("2d");
  const tint = getComputedStyle(document.documentElement).getPropertyValue("--tint");
  const row = high / layers, per = everything / wide;
  for (let l = 0; l < layers; l++) {
    for (let x = 0; x < wide; x++) {
      const from = Math.floor(x * per), to = Math.max(from + 1, Math.floor((x + 1) * per));
      let sum = 0;
      for (let t = from; t < to; t++) sum += held[l][t];
      pen.fillStyle = "rgba(" + tint + "," + (0.9 * sum / (to - from)).toFixed(3) + ")";
      pen.fillRect(x, Math.floor(l * row), 1, Math.ceil(row));
    }
  }
  if (chosen >= 0) {
    pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--run");
    pen.lineWidth = scale * 1.5;
    pen.strokeRect(1, chosen * row, wide - 2, row);
  }
}

slider.addEventListener("input", () => show(Number(slider.value)));
document.getElementById("hide").addEventListener("change", (event) => {
  document.getElementById("prompt").classList.toggle("left", event.target.checked);
});
map.addEventListener("click", (event) => {
  const box = map.getBoundingClientRect();
  slider.value = Math.min(layers - 1, Math.floor((event.clientY - box.top) / box.height * layers));
  show(Number(slider.value));
  const wanted = Math.floor((event.clientX - box.left) / box.width * everything);
  let at = first.findIndex((start) => start > wanted) - 1;
  if (at < 0) at = spans.length - 1;
  document.querySelectorAll(".here").forEach((span) => span.classList.remove("here"));
  spans[at].classList.add("here");
  spans[at].scrollIntoView({ block: "center" });
});
window.addEventListener("resize", () => draw(Number(slider.value)));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(Number(slider.value)));
show(-1);
"""
