// The TensorBoard page that contains this one as a frame of the same origin.

const host = window.parent;

/** The state is kept in the address, so that it survives a reload and can be shared as a link. */
export const fragment = () => host.location.hash;
export const setFragment = (hash) => host.history.replaceState(host.history.state, '', hash);
export const onFragment = (listener) => host.addEventListener('hashchange', listener);

/** Whether TensorBoard shows this tab; the frames of other tabs are hidden. */
export const visible = () => document.documentElement.clientWidth > 0;

export function followDarkMode(changed) {
  const {body} = host.document;
  const apply = () => {
    document.body.classList.toggle('dark', body.classList.contains('dark-mode'));
    changed();
  };
  apply();
  new MutationObserver(apply).observe(body, {attributes: true, attributeFilter: ['class']});
}

/** The regular expression by which TensorBoard's user has it colour the runs, or null. TensorBoard keeps it in the address. */
export function colorRegex() {
  const found = new URLSearchParams(host.location.search).get('runColorGroup');
  return found?.startsWith('regex:') ? found.slice('regex:'.length) : null;
}

export const isDark = () => document.body.classList.contains('dark');

/** Calls `listener` after TensorBoard has reloaded its data. */
export function onReload(listener) {
  const {port1, port2} = new MessageChannel();
  port1.onmessage = ({data}) => {
    const {type, id, isReply} = JSON.parse(data);
    if (isReply) return;
    port1.postMessage(JSON.stringify({type, id, payload: null, error: null, isReply: true}));
    if (type === 'experimental.DataReloaded') listener();
  };
  host.postMessage('experimental.bootstrap', '*', [port2]);
}
