// Child processes of the tests: output goes to files, ends are by process id, nothing outlives its test file.
import { spawn, spawnSync } from 'node:child_process';
import { createWriteStream, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { TEMPORARY } from './run.js';

const running = new Set();
// A test runner that dies must not leave servers behind.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/**
 * Starts `command` and waits for one line of JSON on its standard output.
 * Standard output goes on to `stdout.log` *without* that first line: it is the program's answer, often with keys in it.
 */
export async function startAndRead(command, args, { dir, env = {}, cwd = dir, timeoutMs = 60_000, name = command }) {
  const child = spawn(command, args, { cwd, env: cleanEnvironment(env), stdio: ['ignore', 'pipe', openSync(join(dir, 'stderr.log'), 'a')] });
  running.add(child);
  const rest = createWriteStream(join(dir, 'stdout.log'), { flags: 'a' });
  let head = '';
  let ready = null;
  const exited = new Promise((resolve) => child.once('exit', (code, signal) => {
    running.delete(child);
    resolve({ code, signal });
  }));
  const first = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.stdout.on('data', (chunk) => {
      if (ready !== null) return rest.write(chunk);
      head += chunk.toString('utf8');
      let end;
      while (ready === null && (end = head.indexOf('\n')) >= 0) {
        const line = head.slice(0, end);
        head = head.slice(end + 1);
        if (line.trimStart().startsWith('{')) {
          ready = line;
          rest.write(head);
          try {
            resolve(JSON.parse(line));
          } catch {
            reject(new Error(`${name}: its first line is not JSON`));
          }
        } else {
          rest.write(`${line}\n`);
        }
      }
    });
    exited.then(({ code, signal }) => reject(new Error(`${name} ended before it was ready (${signal ?? `exit ${code}`}):\n${tail(dir)}`)));
  });
  const waiting = new AbortController();
  const late = sleep(timeoutMs, null, { ref: false, signal: waiting.signal }).then(() => {
    child.kill('SIGKILL');
    throw new Error(`${name} was not ready within ${timeoutMs} ms:\n${tail(dir)}`);
  });
  late.catch(() => {});
  const answer = await Promise.race([first, late]);
  // What is ready is no longer late.
  waiting.abort();
  first.catch(() => {});
  return { answer, pid: child.pid, exited, stop: () => stop(child, exited), dir };
}

/** Starts a server that says nothing on standard output; the caller knows when it is ready. */
export function start(command, args, { dir, env = {}, cwd = dir }) {
  const child = spawn(command, args, {
    cwd,
    env: cleanEnvironment(env),
    stdio: ['ignore', openSync(join(dir, 'stdout.log'), 'a'), openSync(join(dir, 'stderr.log'), 'a')],
  });
  running.add(child);
  const exited = new Promise((resolve) => child.once('exit', (code, signal) => {
    running.delete(child);
    resolve({ code, signal });
  }));
  return { pid: child.pid, exited, stop: () => stop(child, exited), dir };
}

/** Runs `command` to its end; its output is returned, and kept in `dir` when it is not meant to hold secrets. */
export function run(command, args, { dir, env = {}, input } = {}) {
  const done = spawnSync(command, args, { cwd: dir, env: cleanEnvironment(env), input, encoding: 'utf8', timeout: 120_000 });
  if (done.error) throw done.error;
  return { code: done.status, stdout: done.stdout, stderr: done.stderr };
}

/** Asks until `ask` answers truthily. */
export async function until(what, ask, timeoutMs = 20_000) {
  const end = Date.now() + timeoutMs;
  let last;
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}${last ? ` (${last.message})` : ''}`);
    await sleep(100);
  }
}

async function stop(child, exited) {
  if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
  const hard = setTimeout(() => child.kill('SIGKILL'), 15_000);
  const end = await exited;
  clearTimeout(hard);
  return end;
}

// Postern refuses variables of its own name space that it does not know, and the suites' settings are none of its
// business.
function cleanEnvironment(extra) {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('POSTERN_') && !name.startsWith('NODE_TEST'));
  return { ...Object.fromEntries(kept), TMPDIR: TEMPORARY, ...extra };
}

function tail(dir) {
  return ['stderr.log', 'stdout.log']
    .map((file) => {
      try {
        return `--- ${file}\n${readFileSync(join(dir, file), 'utf8').split('\n').slice(-30).join('\n')}`;
      } catch {
        return '';
      }
    })
    .join('\n');
}
