// The samples, sorted by the column whose button is pressed: the largest first, pressed again the smallest.
const table = document.querySelector(".samples table");
const body = table.tBodies[0];
const rows = Array.from(body.rows);

table.tHead.addEventListener("click", (event) => {
  const head = event.target.closest("button")?.closest("th");
  if (!head) return;
  const falling = head.getAttribute("aria-sort") !== "descending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const value = (row) => Number(row.cells[head.cellIndex].dataset.value);
  rows.sort((a, b) => (falling ? value(b) - value(a) : value(a) - value(b)));
  body.replaceChildren(...rows);
  table.parentNode.scrollTop = 0;
});
