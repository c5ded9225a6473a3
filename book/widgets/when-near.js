// Only on pages with widgets: Jupyter's scripts for them weigh a megabyte. They come when a widget is less than half a
// screen away, at the first key, which may be on its way to a widget, and before the page is printed.
(function () {
  const folder = new URL(".", document.currentScript.src).href;
  const views = document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]');
  const near = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && bring(), {
    rootMargin: "50% 0%",
  });
  let brought = false;
  function bring() {
    if (brought) return;
    brought = true;
    near.disconnect();
    for (const name of ["require.js", "paths.js", "embed-amd.js"]) {
      const script = document.createElement("script");
      script.src = folder + name;
      script.async = false; // in this order
      // a widget that none of these holds is asked for at an address that is nowhere, rather than from the outside
      script.setAttribute("data-jupyter-widgets-cdn", "unavailable/");
      document.head.append(script);
    }
  }
  views.forEach((view) => near.observe(view.parentElement));
  // who prints from the browser's menu leaves the page with the pointer first
  document.documentElement.addEventListener("mouseleave", bring, { once: true });
  addEventListener("keydown", bring, { once: true });
  addEventListener("beforeprint", bring, { once: true });
})();
