// Acme Mail, the demo provider: what it saw, and how to make it misbehave.
import { plantDigest } from './run.js';

export class Acme {
  constructor(url) {
    this.url = url;
  }

  async log() {
    const answer = await fetch(new URL('/admin/log', this.url));
    if (!answer.ok) throw new Error(`Acme's log answered ${answer.status}`);
    const entries = await answer.json();
    for (const entry of entries) {
      if (entry.issued_access_sha256) plantDigest('an access token of Acme', 'acme_at_', entry.issued_access_sha256);
      if (entry.issued_refresh_sha256) plantDigest('a refresh token of Acme', 'acme_rt_', entry.issued_refresh_sha256);
      // An authorization code is presented at /token; its digest is there.
      if (entry.kind === 'token' && entry.grant_type === 'authorization_code' && entry.token_sha256) {
        plantDigest('an authorization code of Acme', 'acme_ac_', entry.token_sha256);
      }
    }
    return entries;
  }

  /** A place in the log; `since(mark)` is what came after it. */
  async mark() {
    return (await this.log()).at(-1)?.seq ?? 0;
  }

  async since(mark, kind) {
    return (await this.log()).filter((entry) => entry.seq > mark && (kind === undefined || entry.kind === kind));
  }

  tokenRequestsSince(mark) {
    return this.since(mark, 'token');
  }

  /** The next request that fits gets the fault; see `src/dev/acme_mail/fault.rs` for the members. */
  fault(fault) {
    return this.#admin('POST', '/admin/fault', fault);
  }

  clearFaults() {
    return this.#admin('DELETE', '/admin/fault');
  }

  /** The account's access tokens expire now. */
  expire(account) {
    return this.#admin('POST', '/admin/expire', { account });
  }

  /** The person removes Postern in their settings at Acme. */
  disconnect(account) {
    return this.#admin('POST', '/admin/disconnect', { account });
  }

  async mailbox(account) {
    return (await fetch(new URL(`/admin/mailbox?account=${encodeURIComponent(account)}`, this.url))).json();
  }

  async #admin(method, path, body) {
    const answer = await fetch(new URL(path, this.url), {
      method,
      headers: body ? { 'content-type': 'application/json' } : {},
      body: body && JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${method} ${path} at Acme answered ${answer.status}: ${await answer.text()}`);
  }
}
