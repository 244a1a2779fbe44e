// The commands of README.md that promise to work, as they stand there.
//
// A fenced block right after one of these comments is part of the quickstart:
//   <!-- quickstart: serve -->    starts something that keeps running; it is ready when it has printed an address
//   <!-- quickstart -->           runs to its end in the same shell as the blocks before it, and must succeed
// A comment of its own stands for something a person does:
//   <!-- quickstart: connect -->  opens the printed login link, presses what there is to press, connects Acme Mail
//   <!-- quickstart: exports -->  pastes the `export` line that the server printed
//   <!-- quickstart: printed -->  runs the `curl` commands that the server printed, in order
// After a block, <!-- quickstart: expect TEXT --> demands that its output holds TEXT.

/** `[{kind, commands?, expect: []}]` in the order of the file. */
export function quickstart(markdown) {
  const steps = [];
  const lines = markdown.split('\n');
  for (let index = 0; index < lines.length; index += 1) {
    const marked = /^\s*<!--\s*quickstart(?::\s*(\w+)(?:\s+(.*?))?)?\s*-->\s*$/.exec(lines[index]);
    if (!marked) continue;
    const [, kind = 'run', rest] = marked;
    if (kind === 'expect') {
      if (steps.length === 0 || !rest) throw new Error(`README.md:${index + 1}: an expectation after nothing, or of nothing`);
      steps.at(-1).expect.push(rest);
    } else if (['connect', 'exports', 'printed'].includes(kind)) {
      steps.push({ kind, line: index + 1, expect: [] });
    } else if (kind === 'run' || kind === 'serve') {
      let open = index + 1;
      while (open < lines.length && lines[open].trim() === '') open += 1;
      const fence = /^(```+)(sh|bash|console|shell)?\s*$/.exec(lines[open] ?? '');
      if (!fence) throw new Error(`README.md:${index + 1}: no fenced shell block follows`);
      const end = lines.findIndex((line, at) => at > open && line.trim() === fence[1]);
      if (end < 0) throw new Error(`README.md:${open + 1}: the block has no end`);
      const commands = lines.slice(open + 1, end).map((line) => line.replace(/^\$ /, '')).join('\n');
      steps.push({ kind, commands, line: open + 1, expect: [] });
      index = end;
    } else {
      throw new Error(`README.md:${index + 1}: unknown marker "${kind}"`);
    }
  }
  return steps;
}

/** The `curl` commands in what a program printed, continued lines joined. */
export function printedCurls(output) {
  const joined = output.replace(/\u001b\[[0-9;]*m/g, '').replace(/\\\n\s*/g, ' ');
  return joined
    .split('\n')
    .map((line) => line.trim().replace(/^\$ /, ''))
    .filter((line) => line.startsWith('curl '));
}
