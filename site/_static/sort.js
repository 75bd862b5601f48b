// A click on a column's head sorts its table; without this script tables are in their printed order.
document.querySelectorAll("table.docutils").forEach((table) => {
  const body = table.tBodies[0];
  if (!body || body.rows.length < 2) return;
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replace(/[<,]/g, ""));
    return Number.isNaN(number) ? text : number;
  };
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.classList.add("sortable");
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute("aria-sort") === "descending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "ascending" : "descending");
      const order = (first, second) => (first > second ? 1 : first < second ? -1 : 0);
      const rows = [...body.rows].sort((one, two) => {
        const [first, second] = [value(one, column), value(two, column)];
        if (typeof first !== typeof second) return typeof first === "number" ? -1 : 1;
        return down ? order(first, second) : order(second, first);
      });
      body.append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sort();
    });
  });
});
