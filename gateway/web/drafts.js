// What has been typed and not been sent: it outlives its field, which goes with its view.

const drafts = new Map();

const keep = ({ target }) => void drafts.set(target.dataset.draft, target.value);

export const draftOf = (key) => drafts.get(key) ?? "";

/** Properties of an input; a textarea has its text as a child besides. */
export const draft = (key) => ({ "data-draft": key, value: draftOf(key), oninput: keep });
export const draftArea = (key) => ({ "data-draft": key, oninput: keep });

/** It was sent: wherever it stands it goes. */
export function sentDraft(key) {
  drafts.delete(key);
  for (const field of document.querySelectorAll("[data-draft]")) if (field.dataset.draft === key) field.value = "";
}

/** Somebody else's are not the next one's. */
export const forgetDrafts = () => drafts.clear();
