// Search, filters, order and pages for the table of the atlas; without this script the whole table stands on the page.
// The address keeps what was asked: #q=flow&family=grpo, or #key of one work.
(() => {
  const place = document.querySelector("[data-atlas]");
  if (!place || !window.DataTable) return;
  const form = place.querySelector("form");
  const words = form.querySelector("input");
  const choices = [...form.querySelectorAll("select")];
  const news = form.querySelector("output");
  const node = place.querySelector("table");
  const rows = new Map([...node.tBodies[0].rows].map((row) => [row.id, row]));
  const nameOf = (choice) => choice.parentElement.firstChild.textContent.trim().toLowerCase().replaceAll(" ", "-");
  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

  node.caption.textContent = "Works by year. A heading orders the table.";
  const table = new DataTable(node, {
    pageLength: 25,
    order: [[1, "desc"], [0, "asc"]],
    autoWidth: false,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: "paging" },
    columnDefs: [{ targets: "_all", orderSequence: ["asc", "desc"] }],
  });

  function show() {
    const { page, pages, recordsDisplay: found, recordsTotal: all } = table.page.info();
    news.textContent = `${found} of ${all} works` + (pages > 1 ? `, page ${page + 1} of ${pages}.` : ".");
  }

  function apply(keep = true) {
    table.search(plain(words.value));
    for (const choice of choices) table.column(+choice.dataset.column).search(choice.value && `|${choice.value}|`);
    table.draw();
    if (!keep) return;
    const asked = new URLSearchParams();
    if (words.value) asked.set("q", words.value);
    for (const choice of choices) if (choice.value) asked.set(nameOf(choice), choice.value);
    history.replaceState(null, "", asked.size ? `#${asked}` : location.pathname);
  }

  function clear() {
    words.value = "";
    for (const choice of choices) choice.value = "";
  }

  // what the address asks for: one work, or a search; anything else is a heading of the page
  function read() {
    const asked = decodeURIComponent(location.hash.slice(1));
    for (const row of rows.values()) row.classList.remove("atlas-found");
    if (rows.has(asked)) {
      clear();
      apply(false);
      const order = table.rows({ search: "applied", order: "applied" }).nodes().toArray();
      table.page(Math.floor(order.indexOf(rows.get(asked)) / table.page.len())).draw("page");
      rows.get(asked).classList.add("atlas-found");
      rows.get(asked).scrollIntoView({ block: "center" });
    } else if (asked.includes("=")) {
      const wanted = new URLSearchParams(asked);
      words.value = wanted.get("q") ?? "";
      for (const choice of choices) choice.value = wanted.get(nameOf(choice)) ?? "";
      apply(false);
      form.scrollIntoView();
    }
  }

  table.on("draw", show);
  words.addEventListener("input", () => apply());
  for (const choice of choices) choice.addEventListener("change", () => apply());
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    clear();
    apply();
    words.focus();
  });
  window.addEventListener("hashchange", read);
  form.hidden = false;
  show();
  read();
})();
