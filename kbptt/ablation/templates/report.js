/* Sorts a table by a column: the names of the columns become buttons. Empty cells stay last. */
"use strict";
for (const table of document.querySelectorAll(".kbptt-report table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      // A ranking and names begin with the first, numbers with the largest.
      const rows = [...body.rows];
      const text = rows.some((row) => typeof value(row, column) === "string" && value(row, column));
      const before = head.getAttribute("aria-sort");
      const rising = before ? before === "descending" : text || head.textContent === "#";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = text ? String(x).localeCompare(String(y)) : x - y;
        return rising ? order : -order;
      });
      body.append(...rows);
    });
  });
}
