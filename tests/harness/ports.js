// Free ports on loopback.
import { createServer } from 'node:net';

/** `count` different free ports. Another process may take one before it is used; the loser then says so loudly. */
export async function freePorts(count) {
  const probes = [];
  for (let index = 0; index < count; index += 1) {
    const probe = createServer();
    await new Promise((resolve, reject) => probe.once('error', reject).listen(0, '127.0.0.1', resolve));
    probes.push(probe);
  }
  const ports = probes.map((probe) => probe.address().port);
  await Promise.all(probes.map((probe) => new Promise((resolve) => probe.close(resolve))));
  return ports;
}
