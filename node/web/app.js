// The form at `/`: asks `POST /api/v1/urls`, shows the short link with its QR code, and puts each problem at its field.

const REQUEST_TIMEOUT_MS = 15_000;
const COPIED_SHOWN_MS = 2_000;
// What the API may name in `errors`, and the input that the person can change for it.
const INPUT_OF_FIELD = {
  original_url: "original_url",
  custom_alias: "custom_alias",
  expires_in: "expires_in",
  expires_at: "expires_in",
};

const $ = (id) => document.getElementById(id);
const form = $("shorten");
const inputs = [...new Set(Object.values(INPUT_OF_FIELD))].map($);

/** People paste `example.com/page`: what looks like a host gets the scheme that they left out. */
function withScheme(text) {
  return /^[^\s/:@?#]+\.[^\s/:@?#]+(:\d+)?([/?#]|$)/.test(text) ? `https://${text}` : text;
}

function requestBody() {
  const body = { original_url: withScheme($("original_url").value.trim()) };
  const alias = $("custom_alias").value.trim();
  if (alias) body.custom_alias = alias;
  if ($("expires_in").value) body.expires_in = Number($("expires_in").value);
  return body;
}

function clearErrors() {
  for (const input of inputs) {
    input.removeAttribute("aria-invalid");
    $(`${input.id}-error`).hidden = true;
  }
  $("form-error").hidden = true;
}

function showFieldError(input, message) {
  const error = $(`${input.id}-error`);
  error.textContent = message;
  error.hidden = false;
  input.setAttribute("aria-invalid", "true");
  input.closest("details")?.setAttribute("open", "");
}

function showFormError(message) {
  $("form-error").textContent = message;
  $("form-error").hidden = false;
}

/** Shows an RFC 9457 problem; the first field that it names takes the focus. */
function showProblem(status, problem, retryAfter) {
  $("result").hidden = true;
  let errors = problem.errors ?? [];
  if (status === 409) errors = [{ field: "custom_alias", message: problem.detail ?? "This alias is taken. Choose another." }];
  const unplaced = [];
  for (const { field, message } of errors) {
    const input = $(INPUT_OF_FIELD[field] ?? "");
    if (input) showFieldError(input, message);
    else unplaced.push(message);
  }
  if (status === 429) unplaced.push(`Too many requests. Try again in ${retryAfter ?? "a few"} seconds.`);
  else if (!errors.length) unplaced.push(problem.detail ?? problem.title ?? `The server answered ${status}.`);
  if (unplaced.length) showFormError(unplaced.join(" "));
  const first = inputs.find((input) => input.getAttribute("aria-invalid"));
  if (first) {
    first.focus();
    $("status").textContent = $(`${first.id}-error`).textContent;
  }
}

function showLink(link) {
  const domain = link.domain ? `domain=${encodeURIComponent(link.domain)}&` : "";
  const image = `/api/v1/qr/${encodeURIComponent(link.short_code)}?${domain}`;
  $("short_url").href = link.short_url;
  $("short_url").textContent = link.short_url.replace(/^https?:\/\//, "");
  $("target").textContent = `→ ${link.original_url}`;
  $("target").title = link.original_url;
  $("expiry").hidden = !link.expires_at;
  if (link.expires_at) $("expiry").textContent = `Expires ${new Date(link.expires_at).toLocaleString()}`;
  $("qr").src = `${image}format=svg`;
  $("qr").alt = `QR code of ${link.short_url}`;
  $("qr").hidden = false;
  $("qr-download").href = `${image}format=png&size=1024`;
  $("qr-download").download = `${link.short_code}.png`;
  $("qr-download").hidden = false;
  $("copy").textContent = "Copy link";
  $("result").hidden = false;
  $("status").textContent = `Your short link is ${link.short_url}`;
  form.reset();
  $("copy").focus();
}

async function shorten(event) {
  event.preventDefault();
  if (form.hasAttribute("aria-busy")) return;
  clearErrors();
  if (!$("original_url").value.trim()) {
    showProblem(422, { errors: [{ field: "original_url", message: "Enter the address to shorten." }] });
    return;
  }
  form.setAttribute("aria-busy", "true");
  try {
    const response = await fetch("/api/v1/urls", {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json" },
      body: JSON.stringify(requestBody()),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
    const answer = await response.json().catch(() => ({}));
    if (response.ok) showLink(answer);
    else showProblem(response.status, answer, response.headers.get("retry-after"));
  } catch {
    showFormError("The server did not answer. Check the connection and try again.");
  } finally {
    form.removeAttribute("aria-busy");
  }
}

/** The clipboard API exists on https and localhost only; elsewhere the older command copies a selection. */
async function writeClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "visually-hidden";
    area.readOnly = true;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

let copiedTimer;
async function copy() {
  const copied = await writeClipboard($("short_url").href);
  $("copy").textContent = copied ? "Copied" : "Copy failed";
  $("status").textContent = copied ? "Copied to the clipboard." : "Copying failed. Select the link and copy it.";
  $("copy").focus();
  clearTimeout(copiedTimer);
  copiedTimer = setTimeout(() => { $("copy").textContent = "Copy link"; }, COPIED_SHOWN_MS);
}

form.addEventListener("submit", shorten);
$("copy").addEventListener("click", copy);
$("qr").addEventListener("error", () => { $("qr").hidden = $("qr-download").hidden = true; });
