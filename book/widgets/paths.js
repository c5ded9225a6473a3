// Only on pages with widgets: where require.js finds them, and they their fonts, whatever folder the page lies in.
(function () {
  const root = document.documentElement.dataset.content_root || "./";
  const folder = new URL(root + "_static/widgets", document.baseURI).href;
  require.config({
    paths: {
      anywidget: folder + "/anywidget",
      "@jupyter-widgets/html-manager/dist": folder,
      // the rest of them lie in embed-amd.js and are never fetched, but look for fonts beside where they would be
      "@jupyter-widgets": folder,
    },
  });
})();
