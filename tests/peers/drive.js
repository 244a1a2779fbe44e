// An OAuth client of thirty lines, for asking the peers what they do. Not part of any path of Postern's.
import { createHash, randomBytes } from 'node:crypto';

/** Walks the authorization pages by posting their forms; `pick` chooses the form, `fields` fills it in. */
export async function authorize(url, params, { redirect, pick = () => true, fields = {} }) {
  const verifier = randomBytes(32).toString('base64url');
  const jar = new Map();
  let at = new URL(url);
  const asked = {
    redirect_uri: redirect,
    response_type: 'code',
    state: 's1',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    ...params,
  };
  for (const [name, value] of Object.entries(asked)) if (value !== null) at.searchParams.set(name, value);
  let method = 'GET';
  let body;
  for (let step = 0; step < 12; step += 1) {
    const answer = await fetch(at, {
      method,
      body,
      redirect: 'manual',
      headers: { cookie: [...jar].map((pair) => pair.join('=')).join('; ') },
    });
    for (const cookie of answer.headers.getSetCookie()) {
      const [pair] = cookie.split(';');
      jar.set(pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1));
    }
    const location = answer.headers.get('location');
    if (location) {
      at = new URL(location, at);
      if (at.href.startsWith(redirect)) return { answer: Object.fromEntries(at.searchParams), verifier };
      [method, body] = ['GET', undefined];
      continue;
    }
    const page = await answer.text();
    const forms = [...page.matchAll(/<form[^>]*action="([^"]+)"[^>]*>([\s\S]*?)<\/form>/g)];
    const form = forms.find(([, , inner]) => pick(inner));
    if (!answer.ok || !form) return { refused: answer.status, page, verifier };
    at = new URL(form[1], at);
    body = new URLSearchParams([...form[2].matchAll(/name="([^"]+)" value="([^"]*)"/g)].map(([, name, value]) => [name, value.replaceAll('&amp;', '&')]));
    for (const [name, value] of Object.entries(fields)) body.set(name, value);
    method = 'POST';
  }
  throw new Error(`no end of pages at ${at.href}`);
}

/** Posts a form; `{status, body}`, the body parsed if it is JSON. */
export async function post(url, form, headers = {}) {
  return read(await fetch(url, { method: 'POST', body: new URLSearchParams(form), headers }));
}

export async function get(url, headers = {}) {
  return read(await fetch(url, { headers }));
}

export async function read(answer) {
  const text = await answer.text();
  try {
    return { status: answer.status, body: JSON.parse(text) };
  } catch {
    return { status: answer.status, body: text };
  }
}

export function basic({ id, secret }) {
  return { authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}` };
}

export function bearer(token) {
  return { authorization: `Bearer ${token}` };
}
