// `emulate` (npm, pinned): stand-ins for Google, Slack and GitHub written by other people, each behind a tap.
import { createEmulator } from 'emulate';

import { freePorts } from '../harness/ports.js';
import { openTap } from './tap.js';

export const CLIENTS = {
  google: { id: 'postern-google.apps.example', secret: 'GOCSPX-google-client-secret-c4n4ry' },
  slack: { id: '12345.67890', secret: 'slack-client-secret-c4n4ry-5d1e' },
  github: { id: 'Iv1.postern', secret: 'github-client-secret-c4n4ry-88aa' },
};

/** Starts one emulator; Postern and the browser reach it at `port`, its tap. `redirect` is the only one it accepts. */
export async function startEmulator(service, { port, redirect, onSecret }) {
  const [upstream] = await freePorts(1);
  const url = `http://127.0.0.1:${port}`;
  const emulator = await createEmulator({ service, port: upstream, baseUrl: url, seed: { [service]: SEEDS[service](redirect) } });
  const tap = await openTap({ port, upstream, onSecret });
  return {
    ...tap,
    client: CLIENTS[service],
    async close() {
      await tap.close();
      await emulator.close();
    },
  };
}

const SEEDS = {
  google: (redirect) => ({
    users: [{ email: 'ada@peers.example', name: 'Ada Byron' }],
    oauth_clients: [{ client_id: CLIENTS.google.id, client_secret: CLIENTS.google.secret, redirect_uris: [redirect] }],
    messages: [
      {
        id: 'msg_welcome',
        user_email: 'ada@peers.example',
        from: 'welcome@peers.example',
        to: 'ada@peers.example',
        subject: 'Welcome',
        body_text: 'Hello Ada',
        label_ids: ['INBOX', 'UNREAD'],
      },
    ],
  }),
  slack: (redirect) => ({
    team: { name: 'Peers', domain: 'peers' },
    users: [{ name: 'ada', real_name: 'Ada Byron', email: 'ada@peers.example' }],
    channels: [{ name: 'general', topic: 'General' }],
    oauth_apps: [
      {
        client_id: CLIENTS.slack.id,
        client_secret: CLIENTS.slack.secret,
        app_id: 'A000000001',
        name: 'Postern',
        redirect_uris: [redirect],
        scopes: ['chat:write', 'channels:read', 'channels:history', 'users:read', 'reactions:write'],
      },
    ],
  }),
  github: (redirect) => ({
    users: [{ login: 'ada', name: 'Ada Byron', email: 'ada@peers.example' }],
    repos: [{ owner: 'ada', name: 'hello', auto_init: true }],
    oauth_apps: [{ client_id: CLIENTS.github.id, client_secret: CLIENTS.github.secret, name: 'Postern', redirect_uris: [redirect] }],
  }),
};
