// A stand-in for a canvas that writes SVG: the charts draw on it as they do on the screen.

const SPACE = 'http://www.w3.org/2000/svg';
const BASELINE = {top: 0.82, middle: 0.35, alphabetic: 0}; // of the font's size
const ANCHOR = {left: 'start', center: 'middle', right: 'end'};

const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)
  .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, '\ufffd'); // no XML file holds these
const short = (v) => +v.toFixed(2);

export class SvgCanvas {
  constructor(width, height) {
    [this.clientWidth, this.clientHeight, this.ratio] = [width, height, 1];
    this.context = new SvgContext(width, height);
  }

  getContext() {
    return this.context;
  }

  toString() {
    const {clientWidth: w, clientHeight: h, context} = this;
    return `<svg xmlns="${SPACE}" width="${w}" height="${h}" viewBox="0 0 ${w} ${h}" font-family="Roboto, Arial, sans-serif">${
      context.parts.join('')}</svg>\n`;
  }
}

/** The part of CanvasRenderingContext2D that the charts use. */
class SvgContext {
  constructor(width, height) {
    this.parts = [];
    this.saved = [];
    this.clips = 0;
    Object.assign(this, {fillStyle: '#000', strokeStyle: '#000', lineWidth: 1, globalAlpha: 1, font: '12px sans-serif',
      textAlign: 'left', textBaseline: 'alphabetic', lineDashOffset: 0, dash: [], transform: '', clipped: '', path: ''});
    this.measure = document.createElement('canvas').getContext('2d');
    [this.width, this.height] = [width, height];
  }

  save() {
    const {fillStyle, strokeStyle, lineWidth, globalAlpha, textAlign, textBaseline, dash, transform, clipped} = this;
    this.saved.push({fillStyle, strokeStyle, lineWidth, globalAlpha, textAlign, textBaseline, dash, transform, clipped});
  }

  restore() {
    Object.assign(this, this.saved.pop());
  }

  setTransform() {} // by the ratio of pixels, which is 1

  translate(x, y) {
    this.transform += `translate(${short(x)} ${short(y)})`;
  }

  rotate(angle) {
    this.transform += `rotate(${short((angle * 180) / Math.PI)})`;
  }

  setLineDash(dash) {
    this.dash = dash;
  }

  beginPath() {
    this.path = '';
  }

  moveTo(x, y) {
    this.path += `M${short(x)} ${short(y)}`;
  }

  lineTo(x, y) {
    this.path += `L${short(x)} ${short(y)}`;
  }

  rect(x, y, w, h) {
    this.path += `M${short(x)} ${short(y)}h${short(w)}v${short(h)}h${short(-w)}z`;
  }

  clip() {
    const id = `clip${++this.clips}`;
    this.parts.push(`<clipPath id="${id}"><path d="${this.path}"/></clipPath>`);
    this.clipped = ` clip-path="url(#${id})"`;
  }

  stroke() {
    const dash = this.dash.length ? ` stroke-dasharray="${this.dash.join(' ')}" stroke-dashoffset="${this.lineDashOffset}"` : '';
    this.add('path', `d="${this.path}" fill="none" stroke="${escape(this.strokeStyle)}" stroke-width="${this.lineWidth}"${dash}`);
  }

  fill() {
    this.add('path', `d="${this.path}" fill="${escape(this.fillStyle)}"`);
  }

  fillRect(x, y, w, h) {
    this.add('rect', `x="${short(x)}" y="${short(y)}" width="${short(w)}" height="${short(h)}" fill="${escape(this.fillStyle)}"`);
  }

  strokeRect(x, y, w, h) {
    this.beginPath();
    this.rect(x, y, w, h);
    this.stroke();
  }

  measureText(text) {
    this.measure.font = this.font;
    return this.measure.measureText(text);
  }

  fillText(text, x, y) {
    const size = parseFloat(this.font);
    this.add('text', `x="${short(x)}" y="${short(y + size * BASELINE[this.textBaseline])}" font-size="${size}" text-anchor="${
      ANCHOR[this.textAlign]}" fill="${escape(this.fillStyle)}"`, escape(text));
  }

  drawImage(image, x, y, w, h) {
    this.add('image', `x="${short(x)}" y="${short(y)}" width="${short(w)}" height="${short(h)}" preserveAspectRatio="none" href="${
      image.toDataURL('image/png')}"`);
  }

  add(name, attributes, content = '') {
    const transform = this.transform ? ` transform="${this.transform}"` : '';
    const alpha = this.globalAlpha < 1 ? ` opacity="${this.globalAlpha}"` : '';
    this.parts.push(`<${name} ${attributes}${transform}${alpha}${this.clipped}>${content}</${name}>`);
  }
}
