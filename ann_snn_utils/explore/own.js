// A picture of one's own: drawn with mouse, finger or pen, or taken from a file.

// The pixels of a canvas, uint8 [channels, height, width].
function pixelsOf(pen, channels) {
  const { data, width, height } = pen.getImageData(0, 0, pen.canvas.width, pen.canvas.height), plane = width * height;
  const pixels = new Uint8Array(channels * plane);
  for (let cell = 0; cell < plane; cell++) {
    for (let c = 0; c < channels; c++) pixels[c * plane + cell] = data[4 * cell + c];
  }
  return [pixels, [channels, height, width]];
}

function filled(width, height, colour) {
  const pen = make("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  pen.fillStyle = colour;
  pen.fillRect(0, 0, width, height);
  return pen;
}

// A panel, and the button that opens it. drawable: whether there is a sheet to draw on. found: is given every picture.
function ownPicture(drawable, found, failed) {
  const tell = (pixels, shape) => found(pixels, shape).catch(failed);
  const side = 168, pen = filled(side, side, "black"), sheet = pen.canvas;
  Object.assign(sheet, { className: "snn-pad", role: "img" }).setAttribute("aria-label", "draw here");
  Object.assign(pen, { strokeStyle: "white", lineWidth: 15, lineCap: "round", lineJoin: "round" });
  const at = event => pointed(sheet, event).map(share => share * side);
  sheet.onpointerdown = event => {
    sheet.setPointerCapture(event.pointerId);
    const [x, y] = at(event), line = to => { pen.lineTo(...to); pen.stroke(); };
    pen.beginPath();
    pen.moveTo(x, y);
    // A tap is a dot: of a line without length nothing is drawn.
    line([x + 0.1, y]);
    sheet.onpointermove = move => line(at(move));
  };
  sheet.onpointerup = () => {
    sheet.onpointermove = null;
    tell(...pixelsOf(pen, 1));
  };
  const clear = button("Clear", "An empty sheet", () => pen.fillRect(0, 0, side, side));

  const file = make("input", { type: "file", accept: "image/*", id: unique() });
  file.onchange = async () => {
    try {
      const picture = await createImageBitmap(file.files[0]);
      // Larger than any network sees, small enough to send.
      const scale = Math.min(1, 160 / Math.max(picture.width, picture.height));
      const [width, height] = [picture.width, picture.height].map(length => Math.max(1, Math.round(length * scale)));
      const paper = filled(width, height, "white");
      paper.imageSmoothingQuality = "high";
      paper.drawImage(picture, 0, 0, width, height);
      tell(...pixelsOf(paper, 3));
    } catch {
      failed(new Error(`${file.files[0]?.name ?? "this file"} is not a picture that the browser can read`));
    }
  };
  const upload = make("div", { className: "snn-control" },
    make("label", { htmlFor: file.id, textContent: "from a file" }), file);
  const panel = make("div", { className: "snn-own", hidden: true }, ...(drawable ? [sheet, clear] : []), upload);
  const help = "Draw with mouse, finger or pen, or take a picture from a file";
  const opener = button(drawable ? "✎ Draw your own" : "Your own picture", help, () => {
    panel.hidden = !panel.hidden;
    opener.setAttribute("aria-expanded", !panel.hidden);
  });
  return {
    panel, opener,
    enable(on) {
      opener.hidden = !on;
      panel.hidden ||= !on;
    },
  };
}
