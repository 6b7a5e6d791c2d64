// The gateway's clock. A timer counts from a moment that the gateway told, and a PC's clock may be minutes off.

const SECOND = 1000;

let ahead = 0;

/** Milliseconds since the epoch, at the gateway. */
export const now = () => Date.now() + ahead;

/**
 * date: the header of an answer, whole seconds; asked, answered: when, by the PC's clock. What is known already stays
 * while it can be true, so that no timer jumps.
 */
export function learn(date, asked, answered) {
  const at = Date.parse(date ?? "");
  if (Number.isNaN(at)) return;
  const [least, most] = [at - answered, at + SECOND - asked];
  if (ahead < least || ahead > most) ahead = (least + most) / 2;
}
