// Progress of long work, as events. Who shows them (a bar, lines, JSON) decides the caller; `silent` is the default of the library.

/** How far a piece of long work has come. */
export interface ProgressEvent {
  /** What is being done: 'download', 'read weights', 'compile' … */
  readonly task: string;
  /** How much is done, in `unit`. */
  readonly done: number;
  /** How much there is; undefined when not known. */
  readonly total?: number;
  readonly unit: 'bytes' | 'steps';
  /** The item in hand, e.g. a file or tensor name. */
  readonly item?: string;
}

/** A listener for progress. */
export type Progress = (event: ProgressEvent) => void;
export const silent: Progress = () => {};
