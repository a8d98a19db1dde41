// Where a block's content is: a number that tells a block of the device (≥ 0), one of the host (≤ -2), or nowhere.

/** The content is gone. */
export const nowhere = -1;

export function onHost(slot: number): number {
  return -2 - slot;
}

/** The host's block of a place that is on the host. */
export function hostSlot(place: number): number {
  return -2 - place;
}

export function isOnDevice(place: number): boolean {
  return place >= 0;
}

export function isOnHost(place: number): boolean {
  return place < nowhere;
}
