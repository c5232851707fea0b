// Where two texts differ, word by word: the longest common subsequence of their words (Wagner and Fischer 1974).

const MOST = 4_000_000; // pairs of words that are compared; longer texts are not marked
const ALIKE = 0.5; // part of their words that two have in common, from which on differences say something

const segmenter = "Segmenter" in Intl ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;

// Words, and all that stands between them; joined they are the text again.
function words(text) {
  if (segmenter) return Array.from(segmenter.segment(text), (found) => found.segment);
  return text.split(/(\s+|[^\p{L}\p{N}\s])/u).filter(Boolean);
}

// Both texts as parts [text, whether the other lacks it]; null where they are too long, or have little in common.
export function differences(left, right) {
  const [a, b] = [words(left), words(right)];
  let begin = 0;
  while (begin < a.length && begin < b.length && a[begin] === b[begin]) begin += 1;
  let end = 0;
  while (end < Math.min(a.length, b.length) - begin && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const [m, n] = [a.length - begin - end, b.length - begin - end];
  if (m * n > MOST) return null;
  // common[i][j]: how many words the rests of both, from i and from j on, have in common.
  const common = Array.from({ length: m + 1 }, () => new Uint32Array(n + 1));
  for (let i = m - 1; i >= 0; i -= 1)
    for (let j = n - 1; j >= 0; j -= 1)
      common[i][j] =
        a[begin + i] === b[begin + j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
  const own = [new Array(a.length).fill(false), new Array(b.length).fill(false)];
  for (let [i, j] = [0, 0]; i < m || j < n; ) {
    if (i < m && j < n && a[begin + i] === b[begin + j]) [i, j] = [i + 1, j + 1];
    else if (j >= n || (i < m && common[i + 1][j] >= common[i][j + 1])) own[0][begin + i++] = true;
    else own[1][begin + j++] = true;
  }
  const lacked = [a, b].flatMap((all, text) => all.flatMap((word, place) => (/\S/.test(word) ? [own[text][place]] : [])));
  const shared = lacked.filter((mine) => !mine).length;
  if (shared < ALIKE * lacked.length) return null;
  return [joined(a, own[0]), joined(b, own[1])];
}

// Neighbours of one kind as one part, and so is a space between two words that the other lacks.
function joined(all, own) {
  const parts = [];
  all.forEach((word, place) => {
    const mine = own[place] || (/^\s+$/.test(word) && own[place - 1] && own[place + 1]) || false;
    if (parts.length && parts.at(-1)[1] === mine) parts.at(-1)[0] += word;
    else parts.push([word, mine]);
  });
  return parts;
}
