// Before anything is painted: the theme that was chosen, or the system's.
{
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* storage is forbidden */ }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = chosen ?? (dark ? "dark" : "light");
}
