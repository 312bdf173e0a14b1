// The image with physical axes, an explanation on top, positions, and the scales of both, on one canvas.

import { imageScale, paintImage, paintSigned } from "./colours.js";
import { shown } from "./elements.js";

const LEFT = 58;
const TOP = 10;
const BELOW_AXIS = 46;
const SCALE_HEIGHT = 56;

// state: {image, channel, map, most, opacity, markers}
export function draw(canvas, state) {
  const { image } = state;
  const [, height, width] = image.shape;
  const size = height * width;
  const css = getComputedStyle(document.documentElement);
  const text = css.getPropertyValue("--text").trim();
  const back = css.getPropertyValue("--panel").trim();
  const wide = Math.max(canvas.clientWidth || 640, 240);
  const plotWidth = wide - LEFT - 14;
  const plotHeight = Math.round(plotWidth * Math.min(Math.max(height / width, 0.4), 1.6));
  const tall = TOP + plotHeight + BELOW_AXIS + SCALE_HEIGHT * (state.map ? 2 : 1);
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(wide * ratio);
  canvas.height = Math.round(tall * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.fillStyle = back;
  pen.fillRect(0, 0, wide, tall);
  pen.font = "13px system-ui, sans-serif";
  pen.imageSmoothingEnabled = false;
  const box = { x: LEFT, y: TOP, width: plotWidth, height: plotHeight };

  const values = image.values.subarray(state.channel * size, (state.channel + 1) * size);
  const scale = imageScale(values);
  blit(pen, box, width, height, (pixels) => paintImage(pixels, values, scale));
  if (state.map) {
    const channels = state.map.shape[0];
    const from = Math.min(state.channel, channels - 1) * size;
    const explained = state.map.values.subarray(from, from + size);
    blit(pen, box, width, height, (pixels) => paintSigned(pixels, explained, state.most, state.opacity));
  }
  if (state.markers) mark(pen, box, width, height, state.markers);
  axes(pen, box, image, text);

  const bar = { x: LEFT, y: TOP + plotHeight + BELOW_AXIS, width: plotWidth, height: 12 };
  legend(pen, bar, text, paintRamp, [scale.low, scale.high],
    `${image.unit}${scale.log ? " (log scale)" : ""}`);
  if (state.map) {
    bar.y += SCALE_HEIGHT;
    const ramp = Float32Array.from({ length: 256 }, (_, i) => (state.most * (i - 127.5)) / 127.5);
    pen.fillStyle = "#808080";
    pen.fillRect(bar.x, bar.y, bar.width, bar.height);
    legend(pen, bar, text, (pixels) => paintSigned(pixels, ramp, state.most, state.opacity),
      [-state.most, 0, state.most], state.map.unit);
  }
}

function paintRamp(pixels) {
  for (let i = 0; i < 256; i += 1) pixels.set([i, i, i, 255], 4 * i);
}

// Row 0 is at the bottom.
function blit(pen, box, width, height, paint) {
  const layer = new OffscreenCanvas(width, height);
  const ink = layer.getContext("2d");
  const data = ink.createImageData(width, height);
  paint(data.data);
  ink.putImageData(data, 0, 0);
  pen.save();
  pen.translate(box.x, box.y + box.height);
  pen.scale(1, -1);
  pen.drawImage(layer, 0, 0, box.width, box.height);
  pen.restore();
}

function mark(pen, box, width, height, markers) {
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  markers.forEach(([y, x], number) => {
    const at = [box.x + (box.width * (x + 0.5)) / width, box.y + box.height * (1 - (y + 0.5) / height)];
    for (const [colour, thick] of [["#000000", 4], ["#ffd400", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.beginPath();
      pen.arc(...at, 7, 0, 2 * Math.PI);
      pen.stroke();
    }
    pen.lineWidth = 3;
    pen.strokeStyle = "#000000";
    pen.fillStyle = "#ffd400";
    pen.strokeText(String(number), at[0] + 10, at[1]);
    pen.fillText(String(number), at[0] + 10, at[1]);
  });
}

function axes(pen, box, image, text) {
  const [x0, x1, y0, y1] = image.extent;
  pen.strokeStyle = text;
  pen.fillStyle = text;
  pen.lineWidth = 1;
  pen.strokeRect(box.x - 0.5, box.y - 0.5, box.width + 1, box.height + 1);
  pen.textAlign = "center";
  pen.textBaseline = "top";
  for (const tick of ticks(x0, x1, box.width / 70)) {
    const x = box.x + (box.width * (tick - x0)) / (x1 - x0);
    line(pen, x, box.y + box.height, x, box.y + box.height + 5);
    pen.fillText(shown(tick), x, box.y + box.height + 7);
  }
  pen.fillText(image.labels[0], box.x + box.width / 2, box.y + box.height + 24);
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const tick of ticks(y0, y1, box.height / 50)) {
    const y = box.y + box.height * (1 - (tick - y0) / (y1 - y0));
    line(pen, box.x - 5, y, box.x, y);
    pen.fillText(shown(tick), box.x - 8, y);
  }
  pen.save();
  pen.translate(10, box.y + box.height / 2);
  pen.rotate(-Math.PI / 2);
  pen.textAlign = "center";
  pen.fillText(image.labels[1], 0, 0);
  pen.restore();
}

function legend(pen, bar, text, paint, marks, unit) {
  const layer = new OffscreenCanvas(256, 1);
  const ink = layer.getContext("2d");
  const data = ink.createImageData(256, 1);
  paint(data.data);
  ink.putImageData(data, 0, 0);
  pen.drawImage(layer, bar.x, bar.y, bar.width, bar.height);
  pen.strokeStyle = text;
  pen.fillStyle = text;
  pen.lineWidth = 1;
  pen.strokeRect(bar.x - 0.5, bar.y - 0.5, bar.width + 1, bar.height + 1);
  pen.textBaseline = "top";
  marks.forEach((value, number) => {
    const share = number / (marks.length - 1);
    pen.textAlign = share === 0 ? "left" : share === 1 ? "right" : "center";
    pen.fillText(shown(value, 3), bar.x + share * bar.width, bar.y + bar.height + 3);
  });
  pen.textAlign = "center";
  pen.fillText(unit, bar.x + bar.width / 2, bar.y + bar.height + 19, bar.width);
}

function line(pen, ...ends) {
  pen.beginPath();
  pen.moveTo(ends[0], ends[1]);
  pen.lineTo(ends[2], ends[3]);
  pen.stroke();
}

function ticks(low, high, most) {
  const rough = Math.abs(high - low) / Math.max(most, 2);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(i * step);
  return found;
}
