// Every word the page says, in one place. A further language is a further table here with the same keys.

const en = {
  product: "Tandem",
  desktop: "Agent Desktop",
  // signing in
  sign_in: "Sign in",
  sign_in_hint: "with your local account",
  login: "Login",
  password: "Password",
  sign_in_entra: "Sign in with Microsoft",
  no_way_in: "Nobody can sign in here: neither local accounts nor Microsoft Entra ID are switched on.",
  log_out: "Log out",
  session_over: "Your session has ended. Please sign in again.",
  refused: "Microsoft sign-in did not work ({reason}).",
  // connection
  connected: "Connected",
  connecting: "Connecting…",
  lost: "Connection lost. Trying again…",
  missed_title: "While you were disconnected ({time})",
  missed_nothing: "Nothing happened.",
  dismiss: "Dismiss",
  not_reached: "The gateway cannot be reached.",
  failed: "That did not work: {text}",
  // state
  state: "State",
  change_state: "Change state",
  choose_state: "Choose…",
  no_agent: "You are not an agent: there is no state to choose.",
  then: "then {state}",
  logged_out: "Logged out",
  ready: "Ready",
  not_ready: "Not ready",
  busy: "Busy",
  after_call_work: "After-call work",
  supervising: "Supervising",
  not_ready_because: "Not ready: {reason}",
  // calls
  views: "Views",
  my_desk: "My desk",
  supervisor: "Supervisor",
  dial: "Call",
  dial_title: "New call",
  number: "Number",
  number_hint: "+15551230000",
  interactions: "Active interactions",
  no_interactions: "No call at the moment.",
  incoming: "Incoming call",
  incoming_from: "Incoming call from {who}",
  answer_on_phone: "Answer it on your telephone.",
  lift_to_call: "Your telephone rings. Answer it, and {who} is called.",
  decline: "Decline",
  withheld: "number withheld",
  you: "You",
  agent: "Agent",
  teams_expert: "Teams expert",
  external: "External",
  host: "host",
  participants: "Participants",
  call_with: "Call with {who}",
  conference: "Conference of {count}",
  consultation_with: "Consultation with {who}",
  consultation_under_way: "Held while you consult",
  calling: "calling",
  ringing: "ringing",
  talking: "connected",
  setup: "setting up",
  muted: "muted",
  holds: "holds",
  on_hold: "on hold",
  away: "in the consultation",
  held_by: "On hold by {who}",
  // commands
  hang_up: "Hang up",
  hold: "Hold",
  retrieve: "Retrieve",
  mute: "Mute",
  unmute: "Unmute",
  keypad: "Keypad",
  keypad_to: "Digits to {who}",
  digit: "Digit {digit}",
  consult: "Consult",
  merge: "Merge",
  back: "Back to the caller",
  transfer: "Transfer",
  transfer_now: "Transfer to the expert",
  add: "Add",
  remove: "Remove",
  remove_who: "Remove {who}",
  hold_who: "Put {who} on hold",
  retrieve_who: "Take {who} off hold",
  end_for_all: "End for all",
  further_number: "Number to consult, add or transfer to",
  commands: "Commands",
  // what happened
  said_incoming: "A call from {who} came in",
  said_began: "A call with {who} began",
  said_ended: "The call with {who} ended",
  said_answered: "{who} answered",
  said_joined: "{who} joined",
  said_left: "{who} left",
  said_holds: "{who} put the call on hold",
  said_resumes: "{who} retrieved the call",
  said_state: "Your state became {state}",
  // history
  history: "History",
  history_empty: "No finished call yet.",
  when: "When",
  who: "Who",
  how: "How it ended",
  talk: "Talk time",
  held_for: "Hold",
  Inbound: "Inbound",
  Outbound: "Outbound",
  Internal: "Internal",
  External: "External",
  caller_terminated: "caller hung up",
  callee_terminated: "callee hung up",
  participant_terminated: "participant hung up",
  system_terminated: "ended by the system",
  transferred: "transferred",
  conferenced: "conference",
  abandoned_ringing: "abandoned",
  no_answer: "no answer",
  declined: "declined",
  not_found: "not found",
  rejected: "rejected",
  unreachable: "unreachable",
  // supervisor
  agents: "Agents",
  name: "Name",
  team: "Team",
  since: "Since",
  calls: "Calls",
  all_calls: "All calls",
  no_agents: "There are no agents.",
  no_calls: "No call at the moment.",
  my_phone: "Your telephone number",
  my_phone_hint: "It rings when you listen, whisper or barge in.",
  my_phone_missing: "First say which telephone of yours shall ring.",
  listen: "Listen",
  whisper: "Whisper",
  barge: "Barge in",
  mode_of: "{mode} ({who})",
  stop: "Stop",
};

const languages = { en };
export const language = (navigator.languages ?? []).map((one) => one.slice(0, 2)).find((one) => one in languages) ?? "en";

/** The text of that key, `{name}` replaced by values; an unknown key is shown as it is, without underscores. */
export function t(key, values = {}) {
  const text = languages[language][key] ?? en[key] ?? String(key).replaceAll("_", " ");
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

const clock = new Intl.DateTimeFormat(language, { dateStyle: "short", timeStyle: "short" });
export const moment = (iso) => clock.format(new Date(iso));

/** Seconds as m:ss or h:mm:ss. */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
