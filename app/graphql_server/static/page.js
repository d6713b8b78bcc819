// Boots GraphiQL: the token from the address, the example tabs, and who is asked for the answers.
"use strict";

const READ = `# Click the play button, or press Ctrl-Enter in here.
# Reads what you may see of a ticket of the demo; put the
# id of a ticket of yours in its place. The book on the
# left opens the documentation. Esc leaves the editor.
query ReadTicket {
  viewer {
    name
    scopes
  }
  ticket(id: "019320a4-0000-7000-8000-000000000001") {
    activities(first: 10) {
      totalCount
      nodes {
        id
        activityType
        message
        isPrivate
        version
        viewerCanUpdate
      }
    }
  }
}
`;

const UPDATE = `# Edits a comment of that ticket. To choose the text, open
# Variables below and write {"message": "..."}; otherwise
# this page sends one with the time in it. Add
# isPrivate: true to hide the comment from others.
mutation UpdateActivity($message: String) {
  updateTicketActivity(
    input: {
      ticketId: "019320a4-0000-7000-8000-000000000001"
      activityId: "019320a4-0000-7000-8000-000000000101"
      message: $message
    }
  ) {
    ticketActivity {
      message
      isPrivate
      version
    }
    userErrors {
      code
      message
      path
    }
  }
}
`;

const FOLLOW = `# Shows each change of the ticket as it happens. Run it:
# "change": null in the first answer says it has begun.
# Then run UpdateActivity in another window, which the
# button at the top opens: GraphiQL ends a subscription
# when you change tabs.
subscription FollowTicket {
  ticketActivityChanges(
    ticketId: "019320a4-0000-7000-8000-000000000001"
  ) {
    change {
      changeType
      activityId
      changedAt
      ticketActivity {
        message
        isPrivate
        version
      }
    }
    cursor
  }
}
`;

// All state, the token with it, lives in sessionStorage: it survives a reload and ends with the
// browser's tab. localStorage would keep the token on disk.
const storage = window.sessionStorage;
const TOKEN = "token";
const SECOND_WINDOW = "#second-window";
const UNAUTHORIZED = "4401"; // the close code of a WebSocket whose token is not valid any more

function dropHash() {
  // Neither the history nor a copied address is to carry the token.
  history.replaceState(null, "", location.pathname + location.search);
}

function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get(TOKEN);
  if (!token) return false;
  storage.setItem(TOKEN, token);
  dropHash();
  return true;
}

// The new window starts with a copy of this one's sessionStorage, and so with the token.
function openSecondWindow() {
  const { availLeft = 0, availTop = 0, availWidth, availHeight } = screen;
  const width = Math.round(availWidth / 2);
  const place = `left=${availLeft + width},top=${availTop},width=${width},height=${availHeight}`;
  window.open(location.pathname + location.search + SECOND_WINDOW, "", `popup,${place}`);
}

function isSecondWindow() {
  if (location.hash !== SECOND_WINDOW) return false;
  const token = storage.getItem(TOKEN);
  storage.clear(); // the tabs of the first window
  if (token !== null) storage.setItem(TOKEN, token);
  dropHash();
  return true;
}

const form = document.getElementById("token");

function askForToken() {
  if (!form.hidden) return;
  form.hidden = false;
  form.elements["token-value"].focus();
}

function toggleForm() {
  if (form.hidden) askForToken();
  else form.hidden = true;
}

async function fetchAndAskForToken(...request) {
  const response = await fetch(...request).catch((error) => {
    throw new Error(`The service did not answer: ${error.message}. Does it run?`);
  });
  if (response.status === 401) askForToken();
  else form.hidden = true;
  return response;
}

const answerWith = (message) => ({ errors: [{ message }] });

// Turn what GraphiQL would show as a stack trace into an answer with an error.
function answerOf(error) {
  if (error instanceof Event) error = new Error("The connection was lost. Click play again.");
  const [, code, reason] = /^Socket closed with event (\d+) (.+)/.exec(error.message) ?? [];
  if (code === UNAUTHORIZED) askForToken();
  return { done: false, value: answerWith(reason ?? error.message) };
}

const withAnswers = (results) => ({
  [Symbol.asyncIterator]() {
    return this;
  },
  next: () => results.next().catch(answerOf),
  return: () => results.return(),
});

// So that running the example twice changes something twice.
function withMessage(request) {
  if (!/\$message\b/.test(request.query)) return request;
  const message = `Edited in GraphiQL at ${new Date().toLocaleTimeString()}.`;
  return { ...request, variables: { message, ...request.variables } };
}

takeTokenFromAddress();
window.addEventListener("hashchange", () => {
  if (takeTokenFromAddress()) location.reload();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  storage.setItem(TOKEN, form.elements["token-value"].value.trim());
  location.reload();
});

const token = storage.getItem(TOKEN);
const authorization = { Authorization: `Bearer ${token}` };

const send = GraphiQL.createFetcher({
  url: location.pathname,
  headers: { accept: "application/graphql-response+json, application/json", ...authorization },
  fetch: fetchAndAskForToken,
  subscriptionUrl: location.origin.replace(/^http/, "ws") + location.pathname,
  wsConnectionParams: authorization,
});

function fetcher(request, options) {
  if (token === null) {
    askForToken();
    return answerWith("Paste an access token into the bar at the top first.");
  }
  const results = send(withMessage(request), options);
  return Symbol.asyncIterator in results ? withAnswers(results) : results;
}

// The editors have no names of their own for screen readers, and keep the Tab key to themselves.
document.addEventListener("focusin", ({ target }) => {
  const named = target.matches("textarea:not([aria-label])") && target.closest("[aria-label]");
  if (named) target.setAttribute("aria-label", named.getAttribute("aria-label"));
});
document.addEventListener("keydown", ({ key, target }) => {
  if (key !== "Escape" || !target.closest(".CodeMirror")) return;
  if (!document.querySelector(".CodeMirror-hints, .CodeMirror-dialog"))
    document.querySelector(".graphiql-execute-button").focus();
});

const examples = isSecondWindow() ? [FOLLOW] : [READ, UPDATE, FOLLOW];
const element = React.createElement;

ReactDOM.render(
  element(
    GraphiQL,
    {
      fetcher,
      defaultTabs: examples.map((query) => ({ query })),
      schemaDescription: true,
      // The fetcher adds the token, so that it is never on the screen.
      isHeadersEditorEnabled: false,
      shouldPersistHeaders: false,
      storage,
    },
    element(
      GraphiQL.Logo,
      null,
      element("button", { onClick: openSecondWindow }, "Open a second window"),
      element("button", { onClick: toggleForm }, "Use another token"),
    ),
  ),
  document.getElementById("graphiql"),
);
