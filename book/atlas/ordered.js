// A heading of a table of numbers orders it by the number with which a cell begins; without this script it stands as is.
(() => {
  const sorted = (cell) => {
    const text = cell.replace(/<[^>]*>/g, "").trim();
    const number = parseFloat(text.replaceAll(",", ""));
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };
  for (const node of document.querySelectorAll("table.ordered")) {
    if (!window.DataTable) return;
    new DataTable(node, {
      paging: false,
      order: [],
      autoWidth: false,
      layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
      columnDefs: [
        {
          targets: "_all",
          orderSequence: ["desc", "asc"],
          render: (cell, use) => (use === "sort" || use === "type" ? sorted(cell) : cell),
        },
      ],
    });
  }
})();
