// Reads of the coordinator. Every failure becomes an ApiError with words for people.

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;   // 0: nobody answered
  }
}

export async function get(path, parameters, signal) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(parameters || {})) {
    if (value !== "" && value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  let answer;
  try {
    answer = await fetch(url, {signal, cache: "no-store", credentials: "same-origin"});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The coordinator does not answer.", 0);
  }
  let body = null;
  try {
    body = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (!answer.ok || body === null) {
    throw new ApiError(body && body.error ? body.error.message : "The coordinator answered with " + answer.status + ".", answer.status);
  }
  return body;
}
