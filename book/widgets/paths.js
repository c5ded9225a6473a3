// Only on pages with widgets: where require.js finds them, whatever folder the page lies in.
(function () {
  const root = document.documentElement.dataset.content_root || "./";
  const folder = new URL(root + "_static/widgets/", document.baseURI).href;
  window.__jupyter_widgets_assets_path__ = folder;
  require.config({ paths: { anywidget: folder + "anywidget" } });
})();
