// TensorBoard around this page. A plugin's page is a frame of the same origin.

const host = window.parent;

/** The address that the user sees holds the state: it survives a reload, and a link can share it. */
export const fragment = () => host.location.hash;
export const setFragment = (hash) => host.history.replaceState(host.history.state, '', hash);
export const onFragment = (listener) => host.addEventListener('hashchange', listener);

/** Whether TensorBoard shows this tab: others keep their frames, hidden. */
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

/** Calls back when TensorBoard has reloaded: its button, or its own interval. */
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
