// A pad to draw on with a mouse, a finger or a pen. The model's `value` is the drawing: a list of strokes, each a list
// of points [x, y] from 0 to 1. It grows by a stroke when the pen is lifted.

const SIDE = 200; // pixels on the page

function render({ model, el }) {
  const pad = document.createElement("canvas");
  const clear = document.createElement("button");
  pad.width = pad.height = SIDE;
  pad.className = "clnn-sketchpad";
  pad.setAttribute("role", "img");
  pad.setAttribute("aria-label", "a pad to draw a digit on");
  // White in a dark theme, too: the picture that the network gets is dark on bright.
  pad.style.cssText = "background: white; border: 1px solid #888888; cursor: crosshair; touch-action: none";
  clear.textContent = "Clear";
  clear.className = "jupyter-button";
  clear.style.cssText = "display: block; margin: 4px 0";
  el.append(pad, clear);

  const pen = pad.getContext("2d");
  let stroke = null; // the one being drawn

  function draw() {
    pen.clearRect(0, 0, SIDE, SIDE);
    pen.lineWidth = SIDE / 12;
    pen.lineCap = pen.lineJoin = "round";
    for (const points of stroke ? [...model.get("value"), stroke] : model.get("value")) {
      pen.beginPath();
      pen.moveTo(points[0][0] * SIDE, points[0][1] * SIDE);
      for (const [x, y] of points) pen.lineTo(x * SIDE, y * SIDE);
      pen.stroke();
    }
  }

  function put(drawing) {
    model.set("value", drawing);
    model.save_changes();
  }

  function add(event) {
    const box = pad.getBoundingClientRect();
    stroke.push([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
    draw();
  }

  function lift() {
    if (!stroke) return;
    const drawing = [...model.get("value"), stroke];
    stroke = null;
    put(drawing);
  }

  pad.addEventListener("pointerdown", event => {
    pad.setPointerCapture(event.pointerId); // a stroke may leave the pad and come back
    stroke = [];
    add(event);
  });
  pad.addEventListener("pointermove", event => stroke && add(event));
  pad.addEventListener("pointerup", lift);
  pad.addEventListener("pointercancel", lift);
  clear.addEventListener("click", () => put([]));
  model.on("change:value", draw);
  draw();
  return () => model.off("change:value", draw);
}

export default { render };
