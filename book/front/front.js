// The moving picture of the front page: its still becomes a player of what data.js and pictures.png hold.
// It starts by itself where nobody asked for less motion, plays once, and a button and a slider rule it.
(() => {
  const LOOK = 1600, REST = 500, SIZE = 32; // milliseconds of a look and of its end; pixels of a picture in the sheet
  const script = document.currentScript;
  const make = (name, attributes = {}, ...inside) => {
    const node = ["svg", "line", "rect"].includes(name)
      ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...inside);
    return node;
  };

  function start(figure) {
    const still = figure.querySelector("img"), { looks, prompts, moments } = frontPicture;
    const sheet = new URL("pictures.png", script.src).href, longest = moments.at(-1);
    const carts = prompts.map(() => {
      const line = make("line", { y1: -0.2, class: "front-pole" });
      const body = make("rect", { y: -0.2, width: 0.8, height: 0.4, class: "front-cart" });
      const view = make("svg", { viewBox: "-2.4 -2 4.8 2.6", "aria-hidden": "true" });
      view.append(make("line", { x1: -2.4, x2: 2.4, y1: 0.25, y2: 0.25, class: "front-track" }), body, line);
      return { line, body, cell: make("div", { class: "front-cell" }, view) };
    });
    const pictures = prompts.map((prompt, place) => {
      const shown = make("div", { class: "front-drawn" });
      shown.style.backgroundImage = `url("${sheet}")`;
      shown.style.backgroundSize = `${100 * prompts.length}% ${100 * looks.length}%`;
      return { shown, place, cell: make("div", { class: "front-cell" }, shown, make("span", {}, prompt)) };
    });
    const panel = (title, cells) => {
      const said = make("p", { class: "front-said" });
      return [said, make("div", { class: "front-panel" }, make("p", { class: "front-title" }, title),
        make("div", { class: "front-cells", "aria-hidden": "true" }, ...cells), said)];
    };
    const [cartSaid, left] = panel("A pole on a cart", carts.map((one) => one.cell));
    const [pictureSaid, right] = panel("A generator of pictures", pictures.map((one) => one.cell));
    const button = make("button", { type: "button" }, "Play");
    const slider = make("input", { type: "range", min: 0, max: looks.length - 1, step: 1, "aria-label": "How far both have learnt" });
    const player = make("div", { class: "front-player", role: "group", "aria-label": still.alt },
      make("div", { class: "front-panels" }, left, right), make("div", { class: "front-tools" }, button, slider));

    const judge = (cell, good) => {
      cell.classList.toggle("front-good", good);
      cell.classList.toggle("front-bad", !good);
    };
    let look = 0, frame = 0, since = 0, moving = 0;

    function drawFrame() {
      looks[look].carts.forEach((states, place) => {
        const [x, angle] = states[frame], { line, body } = carts[place];
        body.setAttribute("x", x - 0.4);
        for (const [key, value] of [["x1", x], ["x2", x + 1.6 * Math.sin(angle)], ["y2", -0.2 - 1.6 * Math.cos(angle)]]) {
          line.setAttribute(key, value);
        }
        const stood = looks[look].stood[place];
        carts[place].cell.classList.toggle("front-bad", stood < longest && moments[frame] >= stood);
        carts[place].cell.classList.toggle("front-good", stood >= longest && frame === moments.length - 1);
      });
    }

    function drawLook() {
      const now = looks[look], stand = now.stood.filter((stood) => stood >= longest).length;
      const right = now.accepted.filter(Boolean).length;
      pictures.forEach(({ shown, place, cell }) => {
        const part = (at, count) => `${(100 * at) / Math.max(1, count - 1)}%`;
        shown.style.backgroundPosition = `${part(place, prompts.length)} ${part(look, looks.length)}`;
        judge(cell, now.accepted[place]);
      });
      cartSaid.textContent = `${now.steps.toLocaleString("en")} pushes: ${stand} of 8 stand`;
      pictureSaid.textContent = `${now.pictures.toLocaleString("en")} pictures: ${right} of 8 as asked`;
      slider.value = look;
      slider.setAttribute("aria-valuetext", `${cartSaid.textContent}; ${pictureSaid.textContent}`);
    }

    function show(next, at = moments.length - 1) {
      [look, frame] = [next, at];
      drawLook();
      drawFrame();
    }

    function step(time) {
      if (!moving) return;
      since ||= time;
      const passed = time - since;
      const next = Math.min(moments.length - 1, Math.floor((passed / LOOK) * moments.length));
      if (next !== frame) {
        frame = next;
        drawFrame();
      }
      if (passed > LOOK + REST) {
        if (look === looks.length - 1) return stop();
        since = 0;
        show(look + 1, 0);
      }
      moving = requestAnimationFrame(step);
    }

    function play() {
      if (look === looks.length - 1) show(0, 0);
      since = 0;
      button.textContent = "Pause";
      moving = requestAnimationFrame(step);
    }

    function stop() {
      cancelAnimationFrame(moving);
      moving = 0;
      button.textContent = "Play";
      show(look);
    }

    button.addEventListener("click", () => (moving ? stop() : play()));
    slider.addEventListener("input", () => {
      const wanted = Number(slider.value);
      if (moving) stop();
      show(wanted);
    });
    still.hidden = true;
    still.after(player);
    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    calm.addEventListener("change", () => calm.matches && moving && stop());
    addEventListener("beforeprint", () => moving && stop());
    show(looks.length - 1);
    if (!calm.matches && !document.hidden) play();
  }

  const begin = () => document.querySelectorAll("figure.front-picture").forEach(start);
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", begin) : begin();
})();
