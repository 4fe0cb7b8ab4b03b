// What is kept in the browser. It may refuse to keep anything, and others may have written there.

export function recall(name, place = "localStorage") {
  try {
    return window[place].getItem(name);
  } catch {
    return null;
  }
}

export function keep(name, text, place = "localStorage") {
  try {
    window[place].setItem(name, text);
  } catch {
    // Then it holds until the page is left.
  }
}
