// What the blocks hold: content by place, on the device and on the host. A block that is needed gives its content up: to the host, where there is room, or for good.
import { ExecutorError } from '../../base/errors.ts';
import type { BlockId } from './block-table.ts';
import { type CachedBlock, ContentTree } from './content.ts';
import { PendingCopies } from './copies.ts';
import { DevicePages } from './device-pages.ts';
import { EventBuffer } from './events.ts';
import { HostPages } from './host-pages.ts';
import type { CacheLayout } from './layout.ts';
import { hostSlot, isOnDevice, isOnHost, nowhere, onHost } from './place.ts';
import { Priorities } from './priorities.ts';

export interface StoreOptions {
  readonly numBlocks: number;
  readonly tokensPerBlock: number;
  /** Blocks of host memory that content moves to when its place on the device is needed; default 0. */
  readonly numHostBlocks?: number;
  /** Content of a lower priority is dropped instead of moved to the host; default 0: none is. */
  readonly secondaryOffloadMinPriority?: number;
  /** Events kept until they are taken; default 0: none. */
  readonly eventBufferMaxSize?: number;
}

const nobody: ReadonlySet<CachedBlock> = new Set();

export class CacheStore {
  readonly device: DevicePages;
  readonly host: HostPages;
  readonly tree: ContentTree;
  readonly events: EventBuffer;
  readonly copies = new PendingCopies();
  readonly priorities = new Priorities((node, old) => this.#reprioritized(node, old));
  readonly #layout: CacheLayout;
  readonly #minPriority: number;
  /** What they hold on the host must not go now. */
  #pinned: ReadonlySet<CachedBlock> = nobody;
  numAllocated = 0;
  numOffloaded = 0;
  numOnboarded = 0;

  constructor(layout: CacheLayout, options: StoreOptions) {
    const { numBlocks, tokensPerBlock, numHostBlocks = 0 } = options;
    this.#layout = layout;
    this.#minPriority = options.secondaryOffloadMinPriority ?? 0;
    this.device = new DevicePages(numBlocks, layout);
    this.host = new HostPages(numHostBlocks);
    this.tree = new ContentTree(tokensPerBlock);
    this.events = new EventBuffer(options.eventBufferMaxSize ?? 0);
    const levels = numHostBlocks > 0 ? [numBlocks, numHostBlocks] : [numBlocks];
    this.events.add({ type: 'created', numBlocksPerCacheLevel: levels });
  }

  /** Runs `work` while the content that these nodes have on the host stays there. */
  pinning(nodes: readonly CachedBlock[], work: () => void): void {
    this.#pinned = this.host.numBlocks > 0 ? new Set(nodes) : nobody;
    work();
    this.#pinned = nobody;
  }

  /** A block for one holder. */
  take(group: number): BlockId {
    for (;;) {
      const page = this.device.take(group);
      if (page !== undefined) {
        this.numAllocated++;
        return page;
      }
      const victim = this.device.victim();
      if (victim === undefined) throw new ExecutorError('no block is free');
      this.#giveUp(victim);
    }
  }

  /** One more holder of all that a node has on the device. */
  claimAll({ places }: CachedBlock): void {
    for (const place of places) if (isOnDevice(place)) this.device.claim(place as BlockId);
  }

  /** One holder less. */
  release(page: BlockId): void {
    if (this.device.release(page)) this.priorities.unused(this.device.node(page)!);
  }

  /** Blocks that are held hold these tokens from now on; undefined when the name is in use. */
  insert(parent: CachedBlock, places: number[], tokens: Int32Array, from: number, to: number, key?: number) {
    const node = this.tree.insert(parent, places, tokens, from, to, key);
    if (node === undefined) return undefined;
    for (const place of places) if (isOnDevice(place)) this.device.learn(place as BlockId, node);
    node.numResident = this.#layout.numFull;
    if (node.numResident > 0) parent.numResidentChildren++;
    return node;
  }

  /** A held block holds what a node lacks on the device. */
  adopt(node: CachedBlock, group: number, page: BlockId): void {
    const place = node.places[group]!;
    if (isOnHost(place)) this.host.free(hostSlot(place));
    this.device.learn(page, node);
    this.#move(node, group, page);
  }

  /** Brings content from the host back, for one holder; where it is then. */
  onboard(node: CachedBlock, group: number): BlockId {
    const page = this.take(group);
    this.copies.add('toDevice', hostSlot(node.places[group]!), page);
    this.adopt(node, group, page);
    this.numOnboarded++;
    return page;
  }

  /** A node goes, and what builds on it: its blocks become free, or belong to their holder alone. */
  drop(node: CachedBlock): void {
    for (const child of [...node.children()]) this.drop(child);
    for (const place of node.places) {
      if (isOnDevice(place)) this.device.forget(place as BlockId);
      else if (isOnHost(place)) this.host.free(hostSlot(place));
    }
    node.places.fill(nowhere);
    if (node.numResident > 0) this.#reside(node, -node.numResident);
    this.tree.remove(node);
    this.events.add({ type: 'removed', blockHashes: [node.key] });
  }

  /** Tells of blocks that follow each other and are known from now on. */
  tell(added: readonly CachedBlock[]): void {
    if (added.length === 0 || !this.events.enabled) return;
    const parent = added[0]!.parent!;
    this.events.add({
      type: 'stored',
      parentHash: parent.parent === undefined ? null : parent.key,
      blocks: added.map((node) => ({
        blockHash: node.key,
        tokenIds: Array.from(this.tree.tokensOf(node)),
        cacheLevel: 0,
        priority: node.priority,
      })),
    });
  }

  #reprioritized(node: CachedBlock, old: number): void {
    this.device.offerAll(node);
    node.places.forEach((place, group) => {
      if (isOnHost(place)) this.host.put(node, group, hostSlot(place));
    });
    const priority = { oldValue: old, newValue: node.priority };
    this.events.add({ type: 'updated', blockHash: node.key, priority });
  }

  /** The content of an unused block goes: to the host, or for good. */
  #giveUp(page: BlockId): void {
    const node = this.device.node(page)!;
    const group = this.device.group(page);
    const slot = this.#hostSlotFor(node);
    if (this.device.node(page) !== node) {
      // What went from the host was what this built on: it went as well.
      if (slot !== undefined) this.host.free(slot);
    } else if (slot !== undefined) {
      this.copies.add('toHost', page, slot);
      this.device.forget(page);
      this.#move(node, group, onHost(slot));
      this.host.put(node, group, slot);
      this.numOffloaded++;
    } else if (this.#layout.isFull(group)) this.drop(node);
    else {
      this.device.forget(page);
      this.#lose(node, group);
    }
  }

  /** A block of the host for content that gives way; undefined when there is none, or others there are worth more. */
  #hostSlotFor({ priority }: CachedBlock): number | undefined {
    if (this.host.numBlocks === 0 || priority < this.#minPriority) return undefined;
    for (;;) {
      const slot = this.host.take();
      if (slot !== undefined) return slot;
      const victim = this.host.victim(priority, this.#pinned);
      if (victim === undefined) return undefined;
      const { node, group } = victim;
      if (this.#layout.isFull(group)) this.drop(node);
      else {
        this.host.free(hostSlot(node.places[group]!));
        this.#lose(node, group);
      }
    }
  }

  /** A block's content is in another place from now on. */
  #move(node: CachedBlock, group: number, place: number): void {
    const before = node.places[group]!;
    node.places[group] = place;
    if (this.#layout.isFull(group) && isOnDevice(before) !== isOnDevice(place))
      this.#reside(node, isOnDevice(place) ? 1 : -1);
    if (group === 0 && this.events.enabled) {
      const cacheLevel = { oldValue: isOnHost(before) ? 1 : 0, newValue: isOnHost(place) ? 1 : 0 };
      if (cacheLevel.oldValue !== cacheLevel.newValue)
        this.events.add({ type: 'updated', blockHash: node.key, cacheLevel });
    }
  }

  /** Blocks of a node came to the device, or left it. A parent without children there may go. */
  #reside(node: CachedBlock, change: number): void {
    const before = node.numResident;
    node.numResident += change;
    const parent = node.parent!;
    if (before === 0) parent.numResidentChildren++;
    else if (node.numResident === 0 && --parent.numResidentChildren === 0) this.device.offerAll(parent);
  }

  /** A group with a window does not have the block any more. A node that no group has, and nothing builds on, goes. */
  #lose(node: CachedBlock, group: number): void {
    node.places[group] = nowhere;
    for (
      let at: CachedBlock | undefined = node;
      at?.parent !== undefined && at.isLeaf && !at.isSomewhere;
      at = at.parent
    )
      this.drop(at);
  }
}
