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
    span.className = span.className.replace(/^h\d/, "h" + level(part));
    const name = count > 1 ? "tokens " + first[i] + "-" + (first[i] + count - 1) : "token " + first[i];
    const who = layer < 0 ? "all layers and heads" : "the " + data.heads[layer] + " heads of layer " + layer;
    span.title = name + " · kept by " + Math.round(100 * part) + "% of " + who;
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
