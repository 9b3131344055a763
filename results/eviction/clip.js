const data = JSON.parse(document.getElementById("data").textContent);
const slider = document.getElementById("layer"), said = document.getElementById("said");
const parts = [...document.querySelectorAll(".part")], words = [...document.querySelectorAll(".word")];
const frames = [...document.querySelectorAll(".frame")], layers = data.held.length;
const heads = data.heads.reduce((a, b) => a + b, 0);
const whole = data.held[0].map((_, t) => data.held.reduce((sum, row, l) => sum + row[t] * data.heads[l] / heads, 0));

function level(part) {
  return part <= 0 ? 0 : part >= 1 - 1e-6 ? 8 : Math.min(7, 1 + Math.floor(part * 7));
}

function show(layer) {
  const row = layer < 0 ? whole : data.held[layer];
  said.textContent = layer < 0 ? "all " + layers + " layers" : data.said[layer];
  for (const part of parts) part.className = "part k" + level(row[Number(part.dataset.t)]);
  for (const word of words) word.className = "word h" + level(row[Number(word.dataset.t)]);
  for (const frame of frames) {
    const own = [...frame.querySelectorAll(".part")].map((part) => row[Number(part.dataset.t)]);
    const mean = own.reduce((a, b) => a + b, 0) / own.length;
    frame.classList.toggle("gone", mean === 0);
    frame.title = frame.title.replace(/ · .*$/, " · " + Math.round(100 * mean) + "% kept");
  }
}

slider.addEventListener("input", () => show(Number(slider.value)));
document.getElementById("hide").addEventListener("change", (event) => {
  document.getElementById("clip").classList.toggle("left", event.target.checked);
});
show(-1);
