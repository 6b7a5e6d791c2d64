// Teams over the gateway's REST API.

import { ask } from "./api.js";

const part = encodeURIComponent;
const mine = (login) => `/api/v1/agents/${part(login)}/teams`;
const chat = (login, id) => `${mine(login)}/chats/${part(id)}`;
const channel = (login, place) => `${mine(login)}/channels/${part(place.team)}/${part(place.id)}`;
const ACCOUNT = "/api/v1/teams/account";
const WEB_CHATS = "/api/v1/web-chats";
const PEOPLE = "/api/v1/teams/people";

export const teamsApi = {
  enable: (login) => ask("POST", mine(login)),
  disable: (login) => ask("DELETE", mine(login)),
  people: async (text) => (await ask("GET", `${PEOPLE}?q=${part(text)}`)).people,
  person: (oid) => ask("GET", `${PEOPLE}/${part(oid)}`),
  shown: (login, users) => ask("PUT", `${mine(login)}/shown`, { users }),
  chats: async (login) => (await ask("GET", `${mine(login)}/chats`)).chats,
  openChat: (login, user) => ask("POST", `${mine(login)}/chats`, { user }),
  messages: async (login, place) => (await ask("GET", `${chat(login, place.id)}/messages`)).messages,
  send: (login, place, text) => ask("POST", `${chat(login, place.id)}/messages`, { text }),
  favourChat: (login, place, favourite) => ask("PUT", `${chat(login, place.id)}/favourite`, { favourite }),
  channels: async (login) => (await ask("GET", `${mine(login)}/channels`)).channels,
  openChannel: async (login, place) => (await ask("PUT", channel(login, place))).messages,
  closeChannel: (login, place) => ask("DELETE", channel(login, place)),
  channelMessages: async (login, place, thread = "") => (await ask("GET", `${channel(login, place)}/messages${thread ? `?thread=${part(thread)}` : ""}`)).messages,
  post: (login, place, text, thread = "") => ask("POST", `${channel(login, place)}/messages`, { text, thread }),
  favourChannel: (login, place, favourite) => ask("PUT", `${channel(login, place)}/favourite`, { favourite }),
  webChats: async (login) => (await ask("GET", `${WEB_CHATS}?agent=${part(login)}`)).web_chats,
  webChatMessages: async (id) => (await ask("GET", `${WEB_CHATS}/${part(id)}/messages`)).messages,
  sayInWebChat: (id, text) => ask("POST", `${WEB_CHATS}/${part(id)}/messages`, { from: "agent", text }),
  joinWebChat: (id, user) => ask("PUT", `${WEB_CHATS}/${part(id)}/expert`, { user }),
  leaveWebChat: (id) => ask("DELETE", `${WEB_CHATS}/${part(id)}/expert`),
  endWebChat: (id) => ask("DELETE", `${WEB_CHATS}/${part(id)}`),
  account: () => ask("GET", ACCOUNT),
  saveAccount: (account) => ask("PUT", ACCOUNT, account),
  deleteAccount: () => ask("DELETE", ACCOUNT),
  checkAccount: () => ask("POST", `${ACCOUNT}/check`),
  testAccount: (account) => ask("POST", `${ACCOUNT}/test`, account),
};
