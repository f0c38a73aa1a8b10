// Shows the values under the pointer. Everything is in the page; nothing is fetched.
for (const figure of document.querySelectorAll('figure')) {
  const source = figure.querySelector('script');
  const svg = figure.querySelector('svg');
  if (!source || !svg) continue;
  const data = JSON.parse(source.textContent);
  const tip = figure.appendChild(Object.assign(document.createElement('div'), { className: 'tip' }));
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'line');
  line.setAttribute('class', 'pointer');
  line.setAttribute('y1', data.top);
  line.setAttribute('y2', data.bottom);
  const nearest = (points, x) =>
    points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best), points[0]);
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const rows = data.series
      .filter((series) => series.points.length > 0)
      .map((series) => ({ series, point: nearest(series.points, x) }));
    if (rows.length === 0) return;
    const anchor = rows.reduce((best, row) => (Math.abs(row.point[0] - x) < Math.abs(best.point[0] - x) ? row : best));
    tip.replaceChildren(document.createTextNode(anchor.point[1]));
    for (const { series, point } of rows) {
      const row = tip.appendChild(document.createElement('div'));
      row.append(Object.assign(document.createElement('i'), { className: 'c' + series.colour }));
      row.append(`${series.name}: ${point[2]} ${data.unit}`);
    }
    line.setAttribute('x1', anchor.point[0]);
    line.setAttribute('x2', anchor.point[0]);
    svg.append(line);
    tip.style.display = 'block';
    const left = event.clientX - figure.getBoundingClientRect().left + 14;
    tip.style.left = Math.min(left, figure.clientWidth - tip.offsetWidth - 8) + 'px';
    tip.style.top = event.clientY - figure.getBoundingClientRect().top + 14 + 'px';
  });
  svg.addEventListener('pointerleave', () => {
    tip.style.display = 'none';
    line.remove();
  });
}
