// Puts the reward explorer into a page of the book: wherever the page has a place for it.

// The part of an ipywidgets model that the widget uses; there is no kernel behind it.
class Model extends EventTarget {
  constructor(state) {
    super();
    this.state = state;
  }
  get(name) {
    return this.state[name];
  }
  set(name, value) {
    if (this.state[name] === value) return;
    this.state[name] = value;
    this.dispatchEvent(new Event(`change:${name}`));
  }
  save_changes() {}
  on(name, call) {
    this.addEventListener(name, call);
  }
  off(name, call) {
    this.removeEventListener(name, call);
  }
}

const folder = new URL(".", import.meta.url);
const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("widget.css", folder).href });
const styled = new Promise((done) => style.addEventListener("load", done));
document.head.append(style);
const [state, widget] = await Promise.all([
  fetch(new URL("widget.json", folder)).then((answer) => answer.json()),
  import(new URL("widget.js", folder).href),
  styled,
]);
for (const el of document.querySelectorAll("[data-reward-explorer]")) {
  el.replaceChildren();
  widget.default.render({ model: new Model(structuredClone(state)), el });
}
