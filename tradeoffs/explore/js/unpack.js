// What tradeoffs/explore/packing.py packed, as rows again.

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

const matrix = (rows, columns, of) =>
  Array.from({ length: rows }, (_, row) => Array.from({ length: columns }, (_, column) => of(row, column)));

function bits(text, rows, columns) {
  const found = bytes(text);
  return matrix(rows, columns, (row, column) => {
    const place = row * columns + column;
    return (found[place >> 3] >> (7 - (place & 7))) & 1;
  });
}

function symmetric(text, count) {
  const found = new DataView(bytes(text).buffer);
  return matrix(count, count, (row, column) => {
    const [low, high] = [Math.min(row, column), Math.max(row, column)];
    return found.getFloat64(8 * ((low * (2 * count - low + 1)) / 2 + high - low), true);
  });
}

// The table that `choose` reads; `guards`: of each its name, and of each variant whether it loses it beside each best.
function unpacked(table) {
  const count = table.names.length;
  const guards = table.lost.map(({ guard, columns, bits: packed }) => {
    const rows = bits(packed, count, columns);
    return { guard, lost: columns === 1 ? rows.map(([one]) => Array(count).fill(one)) : rows };
  });
  return {
    ...table,
    width: symmetric(table.width, count),
    cheaper: Object.fromEntries(Object.entries(table.cheaper).map(([cost, text]) => [cost, bits(text, count, count)])),
    guards,
    lost: matrix(count, count, (row, column) => guards.reduce((sum, { lost }) => sum + lost[row][column], 0)),
  };
}
