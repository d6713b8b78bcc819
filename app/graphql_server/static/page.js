// Boots GraphiQL: the token from the address, the example tabs, and who is asked for the answers.
"use strict";

const READ = `# Click the play button, or press Ctrl-Enter in here.
# It reads one comment of the demo data, and who you are to the service.
# The book on the left opens the docs; Ctrl-Space completes what you type.
query ReadActivity {
  viewer {
    actorId
    name
    scopes
  }
  ticketActivity(
    ticketId: "019320a4-0000-7000-8000-000000000001"
    activityId: "019320a4-0000-7000-8000-000000000101"
  ) {
    id
    activityType
    isPrivate
    createdAt
    message
    metadata
    version
    isEdited
    viewerCanUpdate
  }
}
`;

const UPDATE = `# Edits the comment that the first tab reads.
# A field left out of the input keeps its value; message: null clears the text.
# Add expectedVersion to change it only if nobody else did since you read it.
mutation UpdateActivity {
  updateTicketActivity(
    input: {
      ticketId: "019320a4-0000-7000-8000-000000000001"
      activityId: "019320a4-0000-7000-8000-000000000101"
      message: "Edited in GraphiQL."
    }
  ) {
    ticketActivity {
      message
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

const FOLLOW = `# Follows the ticket: run it, then run the second tab beside it.
subscription FollowTicket {
  ticketActivityChanges(ticketId: "019320a4-0000-7000-8000-000000000001") {
    changeType
    activityId
    changedAt
    ticketActivity {
      message
      version
    }
    cursor
  }
}
`;

// All state, the token with it, lives in sessionStorage: it survives a reload and ends with the
// browser's tab. localStorage would keep the token on disk, in GraphiQL's history.
const storage = window.sessionStorage;
const TOKEN = "token";
const TABS = "graphiql:tabState";
const HEADERS = "graphiql:headers";

const headersFor = (token) => JSON.stringify({ Authorization: `Bearer ${token}` }, null, 2);

function useToken(token) {
  storage.setItem(TOKEN, token);
  const tabs = storage.getItem(TABS);
  if (tabs === null) return;
  // Tabs of an earlier visit keep their text and get the new token.
  const replaced = (key, value) => (key === "headers" ? headersFor(token) : value);
  storage.setItem(TABS, JSON.stringify(JSON.parse(tabs, replaced)));
  storage.setItem(HEADERS, headersFor(token));
}

function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get(TOKEN);
  if (!token) return false;
  useToken(token);
  // Neither the history nor a copied address is to carry the token.
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

const form = document.getElementById("token");

async function fetchAndAskForToken(...request) {
  const response = await fetch(...request);
  form.hidden = response.status !== 401;
  return response;
}

takeTokenFromAddress();
window.addEventListener("hashchange", () => {
  if (takeTokenFromAddress()) location.reload();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(form.elements["token-value"].value.trim());
  location.reload();
});

const token = storage.getItem(TOKEN);
const headers = token === null ? undefined : headersFor(token);
form.hidden = token !== null;

ReactDOM.render(
  React.createElement(GraphiQL, {
    fetcher: GraphiQL.createFetcher({
      url: location.pathname,
      headers: { accept: "application/graphql-response+json, application/json" },
      fetch: fetchAndAskForToken,
      subscriptionUrl: location.origin.replace(/^http/, "ws") + location.pathname,
      wsConnectionParams: token === null ? {} : { Authorization: `Bearer ${token}` },
    }),
    defaultEditorToolsVisibility: "headers",
    defaultHeaders: headers,
    defaultTabs: [
      { query: READ, headers },
      { query: UPDATE, headers },
      { query: FOLLOW, headers },
    ],
    shouldPersistHeaders: true,
    storage,
  }),
  document.getElementById("graphiql"),
);
