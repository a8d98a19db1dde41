// Beam search over scores that somebody else computes: which continuations of which beams go on, which are finished, when nothing better can come. The rules are Hugging Face
// transformers' (generation/utils.py, _beam_search): of all continuations the best (1 + ends) × width are looked at, those among the first `width` that end are finished with
// score / length ^ lengthPenalty, the best `width` that do not end go on. The diversity rate is TensorRT-LLM's.
import { topTokens } from '../../kernels/sample/reference.ts';
import type { Stop } from './stop.ts';

export interface BeamParams {
  /** Beams after token 1, 2, …; the last one holds for all tokens that follow. */
  readonly widths: readonly number[];
  /** Greater favours longer hypotheses; 0: the sum of log-probabilities counts. */
  readonly lengthPenalty: number;
  /** 1: as soon as `width` hypotheses are finished. 0: also when the best running beam, at its length, is not better than the worst finished one. 2: only when no length could make it better. */
  readonly earlyStopping: 0 | 1 | 2;
  /** Added to the score of a continuation, times the rank of its beam, when continuations are compared. */
  readonly diversityRate: number;
}

/** A token of a hypothesis, linked to the one before. */
export interface BeamNode<Extra> {
  readonly parent: BeamNode<Extra> | undefined;
  readonly token: number;
  /** Tokens from the first one to this. */
  readonly length: number;
  /** Sum of the scores of all of them. */
  readonly score: number;
  readonly extra: Extra;
}

export interface Hypothesis<Extra> {
  readonly node: BeamNode<Extra>;
  /** With the length penalty. */
  readonly score: number;
  readonly stop: Stop | undefined;
}

/** A continuation that goes on: which beam it comes from, and its new end. */
export interface Continuation<Extra> {
  readonly from: number;
  readonly node: BeamNode<Extra>;
}

export interface Step<Extra> {
  /** Scores of all tokens for each running beam: log-probabilities, processed; -Infinity: never. */
  readonly scores: readonly Float32Array[];
  /** Whether beam `from` ends with `token`. */
  stop(from: number, token: number): Stop | undefined;
  extra(from: number, token: number): Extra;
}

interface Candidate {
  readonly from: number;
  readonly token: number;
  readonly score: number;
  /** What it is compared by. */
  readonly rank: number;
}

export class BeamSearch<Extra> {
  readonly #params: BeamParams;
  readonly #maxTokens: number;
  readonly #numEnds: number;
  /** The beams that run; none before the first step. */
  running: readonly BeamNode<Extra>[] = [];
  /** Best first. */
  finished: readonly Hypothesis<Extra>[] = [];
  done = false;
  #length = 0;

  /** `numEnds`: how many tokens end a beam, at most. */
  constructor(params: BeamParams, maxTokens: number, numEnds: number) {
    this.#params = params;
    this.#maxTokens = maxTokens;
    this.#numEnds = numEnds;
  }

  get width(): number {
    return Math.max(...this.#params.widths);
  }

  /** Forgets everything: the search begins anew. */
  reset(): void {
    this.running = [];
    this.finished = [];
    this.done = false;
    this.#length = 0;
  }

  /** Takes the scores of the next token; the continuations that go on, best first. */
  advance(step: Step<Extra>): readonly Continuation<Extra>[] {
    const { widths, earlyStopping } = this.#params;
    const width = widths[Math.min(this.#length, widths.length - 1)]!;
    this.#length++;
    const goOn: Continuation<Extra>[] = [];
    const ended: Hypothesis<Extra>[] = [];
    this.#candidates(step.scores, Math.max(2, 1 + this.#numEnds) * width).forEach((candidate, rank) => {
      const { from, token, score } = candidate;
      const stop = step.stop(from, token);
      if (stop === undefined ? goOn.length >= width : rank >= width) return;
      const parent = this.running[from];
      const node = { parent, token, score, length: this.#length, extra: step.extra(from, token) };
      if (stop === undefined) goOn.push({ from, node });
      else ended.push({ node, stop, score: this.#penalized(node) });
    });
    this.finished = [...this.finished, ...ended].sort((a, b) => b.score - a.score).slice(0, this.width);
    this.running = goOn.map(({ node }) => node);
    const full = this.finished.length >= this.width;
    this.done = goOn.length === 0 || (full && (earlyStopping === 1 || !this.#canImprove()));
    return this.done ? [] : goOn;
  }

  /** All hypotheses, best first: the finished ones, then those that run. */
  ranking(): readonly Hypothesis<Extra>[] {
    const running = this.running.map((node) => ({ node, score: this.#penalized(node), stop: undefined }));
    return [...this.finished, ...running.sort((a, b) => b.score - a.score)];
  }

  #penalized({ score, length }: BeamNode<Extra>): number {
    return score / length ** this.#params.lengthPenalty;
  }

  #canImprove(): boolean {
    const { lengthPenalty, earlyStopping } = this.#params;
    const length = earlyStopping === 2 && lengthPenalty > 0 ? this.#maxTokens : this.#length;
    return this.running[0]!.score / length ** lengthPenalty > this.finished.at(-1)!.score;
  }

  /** The `count` best continuations of all beams, best first; of equals that of the better beam, then the lower token. */
  #candidates(scores: readonly Float32Array[], count: number): Candidate[] {
    const all = scores.flatMap((row, from) => {
      const before = this.running[from]?.score ?? 0;
      const bonus = this.#params.diversityRate * from;
      return Array.from(topTokens(row, count), (token): Candidate => {
        const score = Math.fround(before + row[token]!);
        return { from, token, score, rank: score + bonus };
      });
    });
    return all.sort((a, b) => b.rank - a.rank).slice(0, count);
  }
}

/** The last token that all hypotheses have in common; undefined when there is none. */
export function commonNode<Extra>(nodes: readonly BeamNode<Extra>[]): BeamNode<Extra> | undefined {
  let [common, ...others] = nodes as (BeamNode<Extra> | undefined)[];
  for (let other of others) {
    while (common !== other) {
      if (common === undefined || other === undefined) return undefined;
      if (common.length >= other.length) common = common.parent;
      else other = other.parent;
    }
  }
  return common;
}

/** The tokens of a hypothesis from number `from` on, oldest first. */
export function pathOf<Extra>(node: BeamNode<Extra> | undefined, from: number): BeamNode<Extra>[] {
  const path: BeamNode<Extra>[] = [];
  for (let at = node; at !== undefined && at.length > from; at = at.parent) path.push(at);
  return path.reverse();
}
