// What was to be seen before the login is shown after it.
const form = document.querySelector("form");
form.action += location.hash;
